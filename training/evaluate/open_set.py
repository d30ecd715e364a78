"""Known against unknown: does the highest score of a picture tell whether its class is enrolled? And are probabilities kept?"""

from __future__ import annotations

import numpy as np

RATE = 0.95  # of known pictures that are accepted where false accepts are counted
ROC_POINTS = 101
BINS = 15  # of the calibration error, each with as many pictures


def shares_below(known: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """Of each known picture (n,) the share of unknown ones (m,) that score lower; equal ones count half. Their mean is the
    area under the ROC curve."""
    ordered = np.sort(unknown)
    lower, not_higher = (np.searchsorted(ordered, known, side=side) for side in ("left", "right"))
    return (lower + not_higher) / (2 * len(unknown))


def accepted_unknown(known: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """Whether each unknown picture (m,) is accepted on the highest line that accepts RATE of the known (n,)."""
    needed = -(-round(100 * RATE) * len(known) // 100)  # in whole numbers: 0.95 * n is not exact
    return unknown >= np.sort(known)[-needed]


def roc(known: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """Share of known pictures accepted where 0, 1, … 100 % of the unknown are (ROC_POINTS,)."""
    highest = np.append(np.sort(unknown)[::-1], -np.inf)
    lines = highest[np.arange(ROC_POINTS) * len(unknown) // (ROC_POINTS - 1)]  # accepted is what scores more than the line
    return 1 - np.searchsorted(np.sort(known), lines, side="right") / len(known)


def reliability(probabilities: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """BINS bins of as many answers each, least probable first: mean probability, share that is right, answers.

    Equal probabilities share what they have right, so that it does not matter in which order they come.
    """
    tie = np.unique(probabilities, return_inverse=True)[1]
    shared = (np.bincount(tie, right) / np.bincount(tie))[tie]
    order = np.argsort(probabilities, kind="stable")
    bins = [part for part in np.array_split(order, min(BINS, len(order))) if len(part)]
    return [
        {"probability": float(probabilities[part].mean()), "right": float(shared[part].mean()), "answers": len(part)}
        for part in bins
    ]


def calibration_error(bins: list[dict[str, float]]) -> float:
    """The expected calibration error of reliability bins: mean of |probability - share that is right| over the answers."""
    total = sum(part["answers"] for part in bins)
    return sum(part["answers"] * abs(part["probability"] - part["right"]) for part in bins) / total
