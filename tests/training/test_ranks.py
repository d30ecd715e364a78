"""Two processes under torchrun take the steps that one process takes on the whole batch, and end together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from safetensors.torch import load_file  # noqa: E402

from tests.training import two_ranks  # noqa: E402
from training import ranks  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks left of three runs."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    root = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    subprocess.run([*command, "-m", "tests.training.two_ranks", str(folder)], check=True, cwd=root, env=environment, timeout=110)
    return folder


def steps_of(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines() if "square" in line]


@pytest.mark.parametrize("run", ["same", "told", "timed"])
def test_both_ranks_end_with_the_same_weights_and_one_wrote_them(folder: Path, run: str) -> None:
    one, other = (load_file(folder / f"rank{rank}.safetensors")[run] for rank in (0, 1))
    assert torch.equal(one, other)
    assert torch.equal(one, load_file(folder / run / "checkpoint.safetensors")["learner.weight"])
    assert len(set(steps_of(folder / run))) == len(steps_of(folder / run))


def test_half_a_batch_each_makes_the_steps_of_the_whole_batch(folder: Path, tmp_path: Path) -> None:
    alone = two_ranks.learner()
    two_ranks.train(two_ranks.Config(tmp_path), alone)
    assert torch.allclose(load_file(folder / "rank0.safetensors")["same"], alone.weight, atol=1e-6)
    assert not torch.allclose(two_ranks.learner().weight, alone.weight, atol=1e-2)


def test_each_rank_draws_something_else(folder: Path) -> None:
    one, other = (load_file(folder / f"rank{rank}.safetensors")["drawn"] for rank in (0, 1))
    assert one != other


def test_told_to_stop_one_rank_takes_the_other_along_after_the_same_step(folder: Path) -> None:
    assert steps_of(folder / "told")[-1] == 3  # rank 1 was told while it drew for the fourth, which is not logged
    assert [int(load_file(folder / f"rank{rank}.safetensors")["ended"]) for rank in (0, 1)] == [143, 143]


def test_a_checkpoint_of_two_ranks_is_gone_on_with_by_one(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes((folder / "same" / "checkpoint.safetensors").read_bytes())
    two_ranks.train(two_ranks.Config(tmp_path, steps=5), two_ranks.learner())
    assert steps_of(tmp_path) == [4, 5]


def test_a_batch_that_ranks_cannot_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks.own_share(127) == 127
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert ranks.own_share(12) == 4
    with pytest.raises(SystemExit, match=r"--batch 128: shared by 3 ranks, .* multiple of 6"):
        ranks.own_share(128)
