"""Writes whole model sets to a folder: the tiny network, a code book, a cohort and a manifest that the service accepts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tests.fakes import calibration_for_tests, point_settings_for_tests, region_calibration_for_tests
from tests.tiny_network import CODE, DIM, SIDE_PX, tiny_decoder, tiny_network

Edit = Callable[[dict[str, Any]], object]

DETECTOR_SIDES_PX = (64, 96)


def write_model_set(
    folder: Path,
    edit: Edit = lambda manifest: None,
    *,
    cohort: np.ndarray | None = None,
    words: np.ndarray | None = None,
    deltas: np.ndarray | None = None,
    decoder: bytes | None = None,
    detector: bytes | None = None,
) -> Path:
    """A model set that is right, but for what `edit` does to its manifest.

    With `deltas` it has a synthesizer, with `detector` one with this network.
    """
    folder.mkdir(exist_ok=True)
    points = point_settings_for_tests()
    (folder / "embedding.onnx").write_bytes(tiny_network())
    np.save(folder / "cohort.npy", np.eye(DIM, dtype=np.float32) if cohort is None else cohort)
    np.save(folder / "words.npy", points.words if words is None else words)
    manifest = {
        "format": 1,
        "name": "tiny",
        "embedding": {
            **described(folder / "embedding.onnx"),
            "side_px": SIDE_PX,
            "dim": DIM,
            "preprocessing": "none",
            "view_shares": [0.8, 0.6],
        },
        "points": {
            "side_px": points.side_px,
            "most": points.most,
            "contrast": points.contrast,
            "words": described(folder / "words.npy"),
        },
        "cohort": described(folder / "cohort.npy"),
        "calibration": asdict(calibration_for_tests()),
        "training": {"command": "by hand", "commit": "0" * 40, "packs": []},
    }
    if deltas is not None:
        manifest["synthesis"] = write_synthesis(folder, deltas, tiny_decoder() if decoder is None else decoder)
    if detector is not None:
        manifest["detector"] = write_detector(folder, detector)
    edit(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def some_deltas(seed: int = 0, *, count: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, CODE)).astype(np.float32)


def write_synthesis(folder: Path, deltas: np.ndarray, decoder: bytes) -> dict[str, Any]:
    """The files, and their entry in the manifest."""
    (folder / "delta-encoder.onnx").write_bytes(b"is not opened to serve")
    (folder / "delta-decoder.onnx").write_bytes(decoder)
    np.save(folder / "deltas.npy", deltas)
    files = {"encoder": "delta-encoder.onnx", "decoder": "delta-decoder.onnx", "deltas": "deltas.npy"}
    return {part: described(folder / file) for part, file in files.items()} | {"real_share": 0.5, "made": 8}


def write_detector(folder: Path, network: bytes) -> dict[str, Any]:
    """The file, and its entry in the manifest."""
    (folder / "detector.onnx").write_bytes(network)
    return {
        **described(folder / "detector.onnx"),
        "sides_px": list(DETECTOR_SIDES_PX),
        "dim": 4,
        "width": 0.5,
        "calibration": asdict(region_calibration_for_tests()),
    }


def described(file: Path) -> dict[str, str]:
    return {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
