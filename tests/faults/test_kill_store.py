"""kill -9 in the middle of enrolments: everything acknowledged is there afterwards, and nothing by halves.

A killed process loses nothing that the kernel has taken, so this shows that commits are atomic and acknowledged in order, and not
that they are flushed: `test_every_commit_is_flushed_to_the_disk` holds the setting for that.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from contextlib import closing
from itertools import count
from pathlib import Path

from app.adapters.store_sqlite import SqliteStore
from app.domain.changes import ExamplesAdded
from app.domain.gallery import Gallery
from tests.values import NETWORKS, added, plain, random_units

ROOT = Path(__file__).parents[2]
ROUNDS = 5
SEED = 12


def enrolment(number: int) -> tuple[ExamplesAdded, dict[str, bytes]]:
    """What the writer commits as version `number`: every part of it follows from the number."""
    crops = {f"e{position}": random.Random(2 * number + position).randbytes(20_000) for position in range(2)}
    return added(f"class {number}", *random_units(2, 128, seed=number)), crops


def enrol_for_ever(path: Path) -> None:
    store = SqliteStore(path)
    for number in count(store.snapshot().version + 1):
        change, crops = enrolment(number)
        print(store.commit(change, expected=0, crops=crops), flush=True)  # noqa: T201  the acknowledgement


def kill_after(path: Path, acknowledgements: int) -> list[int]:
    """Versions that a writer acknowledged before it was killed, which comes after so many at the earliest."""
    command = [sys.executable, "-m", "tests.faults.test_kill_store", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        lines = [writer.stdout.readline() for _ in range(acknowledgements)]
        writer.kill()
        lines += writer.stdout.readlines()
    assert writer.returncode == -signal.SIGKILL
    return [int(line) for line in lines if line.endswith("\n")]


def test_what_was_acknowledged_survives_and_nothing_is_torn(tmp_path: Path) -> None:
    path, chance, acknowledged = tmp_path / "firstsight.db", random.Random(SEED), []
    for _ in range(ROUNDS):
        acknowledged += kill_after(path, chance.randint(1, 60))
        with closing(SqliteStore(path)) as store:
            snapshot = store.snapshot()
            assert snapshot.version - acknowledged[-1] in (0, 1)  # the last may be durable, and its acknowledgement cut off
            assert acknowledged == sorted(set(acknowledged))
            for number in range(1, snapshot.version + 1):
                _assert_whole(store, number)
            folded = Gallery.empty(NETWORKS).fold(*store.follow(0))
            assert plain(folded.snapshot().classes) == plain(snapshot.classes)
            assert len(snapshot.classes) == snapshot.version


def _assert_whole(store: SqliteStore, number: int) -> None:
    change, crops = enrolment(number)
    (committed,) = store.follow(number - 1, limit=1)
    assert plain(committed.change) == plain(change)
    assert {example_id: store.read_crop(change.class_name, example_id) for example_id in crops} == crops


if __name__ == "__main__":
    enrol_for_ever(Path(sys.argv[1]))
