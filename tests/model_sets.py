"""Writes whole model sets to a folder: the tiny network, a cohort and a manifest that the service accepts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tests.fakes import calibration_for_tests
from tests.tiny_network import DIM, SIDE_PX, tiny_network

Edit = Callable[[dict[str, Any]], object]


def write_model_set(folder: Path, edit: Edit = lambda manifest: None, *, cohort: np.ndarray | None = None) -> Path:
    """A model set that is right, but for what `edit` does to its manifest."""
    folder.mkdir(exist_ok=True)
    (folder / "embedding.onnx").write_bytes(tiny_network())
    np.save(folder / "cohort.npy", np.eye(DIM, dtype=np.float32) if cohort is None else cohort)
    manifest = {
        "format": 1,
        "name": "tiny",
        "embedding": {
            "file": "embedding.onnx",
            "sha256": hashlib.sha256((folder / "embedding.onnx").read_bytes()).hexdigest(),
            "side_px": SIDE_PX,
            "dim": DIM,
            "preprocessing": "none",
            "view_shares": [0.8, 0.6],
        },
        "cohort": {"file": "cohort.npy", "sha256": hashlib.sha256((folder / "cohort.npy").read_bytes()).hexdigest()},
        "calibration": asdict(calibration_for_tests()),
        "training": {"command": "by hand", "commit": "0" * 40, "packs": []},
    }
    edit(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
