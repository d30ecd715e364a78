"""The loop that every network is trained by: so many minutes or steps, interrupted and gone on with as often as needed.

A paper's file gives the losses of a step, the optimizer and what is validated; minutes, checkpoints, weight average, precision
and log lines are the same for all. An interrupted run ends with the weights of an uninterrupted one of as many steps.

Under torchrun each rank draws a part of the batch of its own (`ranks.py`); statistics of batch norms are the first rank's, whose
part is drawn as at random as any.
"""

from __future__ import annotations

import copy
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from training import ranks, run

LOG_EVERY = 50  # steps
LARGEST_GRADIENT = 5.0

Losses = Callable[[float, str], dict[str, Tensor]]  # progress in [0, 1] and precision -> the terms of a fresh batch's loss
Scores = Callable[[nn.Module], dict[str, float]]  # of the averaged network, on validation classes


class Timetable(Protocol):
    """What of a stage's Config the loop reads."""

    @property
    def run(self) -> Path: ...
    @property
    def minutes(self) -> float: ...
    @property
    def steps(self) -> int: ...
    @property
    def ema(self) -> float: ...
    @property
    def checkpoint_s(self) -> float: ...
    @property
    def precision(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def smoke(self) -> bool: ...


def fit(
    config: Timetable,
    device: torch.device,
    learner: nn.Module,
    shipped: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    losses: Losses,
    rate_at: Callable[[float], float],
    scores: Scores,
) -> None:
    """Trains `learner`; `shipped`, a part of it, is averaged, validated and kept. Goes on from a checkpoint in the run folder.

    Told to end by SIGTERM it ends after the step, with status 143.
    """
    ranks.join()
    writes = ranks.rank() == 0
    folder = run.RunFolder(config.run, config, writes=writes)
    average = run.MovingAverage(shipped, config.ema)
    step, spent_s = 0, 0.0
    if saved := folder.load(device):
        tensors, state = saved
        learner.load_state_dict(run.without_prefix("learner", tensors))
        average.average = run.without_prefix("average", tensors)
        run.unpack_optimizer(optimizer, tensors)
        step, spent_s = state["step"], state["spent_s"]

    def progress() -> float:
        return min(1.0, step / config.steps if config.steps else spent_s / (60 * config.minutes))

    def backward(precision: str) -> dict[str, Tensor]:
        terms = losses(progress(), precision)
        torch.stack(list(terms.values())).sum().backward()
        return {name: term.detach() for name, term in terms.items()}

    def save_and_validate() -> None:
        if not writes:
            return
        tensors = run.prefixed("learner", learner.state_dict()) | run.prefixed("average", average.average)
        folder.save(tensors | run.pack_optimizer(optimizer), {"step": step, "spent_s": spent_s})
        judge = copy.deepcopy(shipped).eval()
        judge.load_state_dict(average.as_state(shipped))
        folder.log(step=step, spent_s=round(spent_s, 1), **scores(judge))

    before = copy.deepcopy(learner.state_dict())  # timing a step must not leave its mark on the norms' statistics
    precision = ranks.first_ones(run.pick_precision(device, config.precision, backward))
    learner.load_state_dict(before)
    optimizer.zero_grad(set_to_none=True)
    told_to_stop = False

    def on_sigterm(*_: object) -> None:
        nonlocal told_to_stop
        told_to_stop = True  # ranks stop after the same step

    signal.signal(signal.SIGTERM, on_sigterm)
    named = f"{config.run.name} {precision}"
    bar = tqdm(total=1000, initial=round(1000 * progress()), desc=named, mininterval=5, disable=not writes)
    mark = last_save = time.monotonic()
    try:
        while progress() < 1:
            # A step draws the same whether or not the run was interrupted, and each rank something else. A CPU's generator takes
            # the lowest 32 bits of a seed: the factor spreads ranks over those.
            torch.manual_seed(config.seed * 1_000_003 + step + ranks.rank() * 2_654_435_761)
            rate = rate_at(progress())
            for group in optimizer.param_groups:
                group["lr"] = rate
            terms = backward(precision)
            ranks.average_gradients(learner)
            nn.utils.clip_grad_norm_(learner.parameters(), LARGEST_GRADIENT)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average.update(shipped, step)
            step += 1
            now = time.monotonic()
            (spent_s, stop), mark = ranks.agree(spent_s + now - mark, told_to_stop), now
            if stop:
                sys.exit(143)  # by way of `finally` below
            if writes and (step % LOG_EVERY == 0 or config.smoke):
                values = {name: float(term) for name, term in terms.items()}  # waits for a GPU: not in every step
                folder.log(step=step, spent_s=round(spent_s, 1), rate=rate, **values)
                bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()} | {"step": step}, refresh=False)
                bar.update(round(1000 * progress()) - bar.n)
            if now - last_save > config.checkpoint_s:
                save_and_validate()
                last_save = mark = time.monotonic()  # neither saving nor validating is training: the budget counts steps
    finally:
        save_and_validate()
        if writes:
            folder.draw_curve()
        bar.close()
