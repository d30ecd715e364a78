"""Stores as versions before this one left them, written by hand: nothing here follows the code that reads them."""

from __future__ import annotations

import json
import sqlite3
import struct
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from app.domain.values import Box, ClassModel, Example, Points, Provenance

# Format 1 as it was written, and what it means: three floats for the example, then two rows of three for the class model.
EXAMPLE_1 = {"id": "e0", "box": [1, 2, 30, 40], "embedding": {"at": 0, "shape": [3]}, "spread": 0.125}
MODEL_1 = {
    "representatives": {"at": 3, "shape": [2, 3]},
    "spread": 0.25,
    "threshold": 0.6,
    "networks": "networks",
    "calibration": "calibration",
}
FLOATS_1 = (1, 0, 0, 0, 1, 0, 0, 0, 1)
EXAMPLE_OF_1 = Example("e0", Box(1, 2, 30, 40), np.array([1, 0, 0], np.float32), 0.125, Points.none())
MODEL_OF_1 = ClassModel(np.array([[0, 1, 0], [0, 0, 1]], np.float32), 0.25, 0.6, Provenance("networks", "calibration", ""))

SCHEMA_1 = """
    CREATE TABLE classes (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL);
    CREATE TABLE crops (
        class_id INTEGER NOT NULL REFERENCES classes (id) ON DELETE CASCADE,
        example_id TEXT NOT NULL,
        data BLOB NOT NULL,
        PRIMARY KEY (class_id, example_id)
    );
    CREATE TABLE changes (version INTEGER PRIMARY KEY, record BLOB NOT NULL);
    PRAGMA user_version = 1;
    PRAGMA journal_mode = WAL;
"""


def record_of_format_1(fields: dict[str, Any]) -> bytes:
    header = json.dumps(fields, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 4)
    content = struct.pack("<I", len(header)) + header + struct.pack("<9f", *FLOATS_1)
    return struct.pack("<II", 1, zlib.crc32(content)) + content


def write_store_of_schema_1(path: Path, classes: Mapping[str, bytes], changes: Sequence[bytes]) -> None:
    """Records of classes by name, each with a crop `crop of <name>` for example `e0`; and of changes, oldest first."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA_1)
        for name, record in classes.items():
            row = connection.execute("INSERT INTO classes (name, record) VALUES (?, ?)", (name, record)).lastrowid
            connection.execute("INSERT INTO crops VALUES (?, 'e0', ?)", (row, f"crop of {name}".encode()))
        connection.executemany("INSERT INTO changes VALUES (?, ?)", enumerate(changes, start=1))
        connection.commit()
