"""What a benchmark says: figures with a unit, a goal where there is one, and the machine they were taken on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
RESAMPLES = 10_000


@dataclass(frozen=True)
class Figure:
    what: str
    value: float
    unit: str
    goal: str = ""
    interval: tuple[float, float] | None = None  # 95 %

    def shown(self) -> str:
        """The value with its interval."""
        if self.interval is None:
            return f"{self.value:.3g}"
        low, high = self.interval
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}]"

    def __str__(self) -> str:
        return f"{self.what:60} {self.shown():>22} {self.unit:12} {self.goal}".rstrip()


def median_ratio(what: str, of: Sequence[float], over: Sequence[float], *, unit: str, goal: str) -> Figure:
    """Median of paired ratios with its bootstrap interval: a disturbance of the machine hits both sides of a pair."""
    ratios = np.asarray(of) / np.asarray(over)
    drawn = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), (0.025, 0.975))
    return Figure(what, float(np.median(ratios)), unit, goal, (float(low), float(high)))


def percentiles(what: str, seconds: Sequence[float]) -> list[Figure]:
    return [Figure(f"{what}, p{percent}", float(np.percentile(seconds, percent)) * 1e3, "ms") for percent in (50, 99)]


def save(name: str, question: str, figures: Sequence[Figure]) -> None:
    """One file a benchmark, so that a change of figures is a change in the history; and the page made of them all."""
    result = {"question": question, "machine": machine(), "figures": [asdict(figure) for figure in figures]}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "README.md").write_text(page())


def page() -> str:
    """Every result as one table a benchmark."""
    text = "# What it costs\n\nMade by `make bench`; intervals are of 95 %.\n"
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text())
        figures = [Figure(**figure) for figure in result["figures"]]
        rows = [f"| {figure.what} | {figure.shown()} {figure.unit} | {figure.goal} |" for figure in figures]
        conditions = "{processor}, {cores} cores under load {load:.1f}, Python {python}, commit {commit}".format(
            **result["machine"]
        )
        text += "\n".join(["", f"## {result['question']}", "", "| | figure | goal |", "|---|---|---|", *rows, "", conditions, ""])
    return text


def machine() -> dict[str, str | int | float]:
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "commit": commit.stdout.strip(),
    }


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
