"""Drawings of what `training evaluate classify` and `detect` measured, from their result files: small SVGs for the documentation.

Each takes results as they were read, `json.loads(path.read_text())`, and the file to write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Result = Mapping[str, Any]

OWN_RULE = ", own rule"  # after the name of an arm
SIZE_INCHES = (4.5, 3.6)
CALM = {
    "svg.hashsalt": "firstsight",  # the same figures give the same bytes
    "svg.fonttype": "none",  # words as text: smaller, and the reader's own fonts
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
}


def shot_curve(results: Sequence[Result], out: Path) -> None:
    """Accuracy against the pictures shown of a class, a line an arm with its 95 % intervals; a result for each number of shots.

    ValueError for results that differ in more than that.
    """
    asked = {(r["data"], r["split"], r["support"], r["support_split"], r["way"], r["views"]) for r in results}
    if len(asked) != 1:
        raise ValueError(f"a shot curve is of one task, these are {len(asked)}")
    ordered = sorted(results, key=lambda result: result["shots"])
    with mpl.rc_context(CALM):
        figure, axes = _axes("pictures shown of a class", f"accuracy in percent, {ordered[0]['way']}-way")
        for name, colour in colours(ordered).items():
            points = [(r["shots"], r["classify"][name]["accuracy"]) for r in ordered if name in r["classify"]]
            shots, means = [shot for shot, _ in points], [100 * a["mean"] for _, a in points]
            axes.plot(shots, means, marker="o", label=name, color=colour)
            low, high = ([100 * accuracy[end] for _, accuracy in points] for end in ("low", "high"))
            axes.fill_between(shots, low, high, alpha=0.15, color=colour)
        axes.set_xscale("log")
        shown = [result["shots"] for result in ordered]
        axes.set_xticks(shown, [str(shot) for shot in shown], minor=False)
        axes.set_xticks([], minor=True)
        _save(figure, axes, out)


def roc(result: Result, out: Path) -> None:
    """Known pictures accepted against unknown ones accepted, a line an arm: means over episodes at each share of the unknown.

    A model set is drawn by its own rule too, dashed. ValueError for a result without unknown classes.
    """
    curves = {name: figures for name, figures in by_rule(result).items() if figures["roc"]}
    if not curves:
        raise ValueError(f"the result has no unknown classes: {result['no_unknown_classes_because']}")
    with mpl.rc_context(CALM):
        figure, axes = _axes("unknown pictures accepted, percent", "known pictures accepted, percent")
        for name, figures in curves.items():
            points = figures["roc"]
            percent = [100 * step / (len(points) - 1) for step in range(len(points))]
            axes.plot(
                percent, [100 * share for share in points], label=f"{name}, area {100 * figures['auroc']['mean']:.1f}",
                color=colours([result])[name.removesuffix(OWN_RULE)], linestyle="--" if name.endswith(OWN_RULE) else "-",
            )  # fmt: skip
        _diagonal(axes)
        _save(figure, axes, out)


def reliability(result: Result, out: Path) -> None:
    """Share of answers that are right against the probability they were given with, a line a model set.

    ValueError for a result without a model set: no other arm gives probabilities.
    """
    curves = {name: arm["own_rule"] for name, arm in result["classify"].items() if "reliability" in (arm["own_rule"] or {})}
    if not curves:
        raise ValueError("the result has no model set, and other arms give no probabilities")
    with mpl.rc_context(CALM):
        figure, axes = _axes("probability, percent", "right, percent")
        for name, figures in curves.items():
            bins = figures["reliability"]
            means, rights = [100 * part["probability"] for part in bins], [100 * part["right"] for part in bins]
            axes.plot(means, rights, marker="o", label=f"{name}, calibration error {100 * figures['ece']:.1f}")
        _diagonal(axes)
        _save(figure, axes, out)


def precision_recall(result: Result, out: Path) -> None:
    """Precision against recall of a result of `evaluate detect`, a line an arm: boxes in one ranking, repeats ignored, IoU 0.5.

    ValueError for a result without curves: those that were written before there were any.
    """
    curves = {name: arm for name, arm in result["detect"].items() if "curve" in arm}
    if not curves:
        raise ValueError("the result has no precision-recall curves")
    with mpl.rc_context(CALM):
        figure, axes = _axes("things found, percent", "right of what was found, percent")
        for number, (name, arm) in enumerate(curves.items()):
            recall, precision = ([100 * share for share in arm["curve"][end]] for end in ("recall", "precision"))
            label = f"{name}, AP50 {100 * arm['pooled_ap50_repeats_ignored']['mean']:.1f}"
            axes.plot([0, *recall], [*precision[:1], *precision] or [0], label=label, color=f"C{number}")
        axes.set(xlim=(0, 100), ylim=(0, 102))
        _save(figure, axes, out)


def by_rule(result: Result) -> dict[str, Any]:
    """Figures of every arm, and of a model set's own rule beside them."""
    found: dict[str, Any] = {}
    for name, arm in result["classify"].items():
        found[name] = arm
        if arm["own_rule"]:
            found[name + OWN_RULE] = arm["own_rule"]
    return found


def colours(results: Sequence[Result]) -> dict[str, str]:
    """By the arms' names, in their order: an arm has one colour in all drawings of a task."""
    names = dict.fromkeys(name for result in results for name in result["classify"])
    return {name: f"C{number}" for number, name in enumerate(names)}


def _axes(across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")  # no pyplot: nothing global, and no display is needed
    axes = figure.subplots()
    axes.set(xlabel=across, ylabel=up)
    return figure, axes


def _diagonal(axes: Axes) -> None:
    axes.plot([0, 100], [0, 100], color="grey", linewidth=0.8, linestyle="--")


def _save(figure: Figure, axes: Axes, out: Path) -> None:
    axes.legend(frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)
