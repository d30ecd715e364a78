"""`watch`: classify what arrives in a folder, a line for each picture."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from app.client import DEFAULT_URL, Answer, Busy, Firstsight, Problem, Unreachable
from app.commands.calling import Exit, KeyOption, UrlOption, calling, err, escaped, write_json
from app.commands.folder import OF_THE_PICTURE, is_picture

COLUMNS = ("file", "outcome", "decision", "probability", "similarity", "threshold", "fault")
State = tuple[int, int]  # size and time of the last change, by which a file that is still written is known


def watch(
    folder: Annotated[Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, show_default=False)],
    form: Annotated[
        Literal["jsonl", "csv"], typer.Option("--format", help="jsonl: the whole answers; csv: a row each.")
    ] = "jsonl",
    existing: Annotated[bool, typer.Option("--existing", help="Begin with the pictures that are there.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Classify what is there, and end.")] = False,
    every_s: Annotated[float, typer.Option("--every", min=0.05, help="Seconds between two looks at the folder.")] = 1.0,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """Classify pictures as they arrive in a folder, until Ctrl-C."""
    write = _write_csv() if form == "csv" else write_json
    with calling(url, key) as firstsight:
        firstsight.info()  # a wrong address or key is told at once, not at the first picture
        if not once:
            err.print(f"Watching {folder}; Ctrl-C ends it.")
        try:
            if once:
                for file in _there(folder):
                    write(_row(firstsight, file))
            else:
                for file in _arriving(folder, skip=not existing, every_s=every_s):
                    write(_patient_row(firstsight, file, every_s=every_s))
        except KeyboardInterrupt:
            raise typer.Exit(Exit.DONE) from None


def _arriving(folder: Path, *, skip: bool, every_s: float) -> Iterator[Path]:
    """Files as they come, when they have stood still from one look to the next."""
    seen = {file: _state(file) for file in _there(folder)} if skip else {}
    done = dict(seen)
    while True:
        states = {file: _state(file) for file in _there(folder)}
        for file, state in states.items():
            if state is not None and state == seen.get(file) != done.get(file):
                done[file] = state
                yield file
        seen = states
        time.sleep(every_s)


def _there(folder: Path) -> list[Path]:
    return sorted(filter(is_picture, folder.rglob("*")))


def _state(file: Path) -> State | None:
    try:
        status = file.stat()
    except OSError:  # taken away again
        return None
    return status.st_size, status.st_mtime_ns


def _patient_row(firstsight: Firstsight, file: Path, *, every_s: float) -> dict[str, object]:
    """As `_row`, however long the service is away: what has arrived is not lost over a restart."""
    while True:
        try:
            return _row(firstsight, file)
        except (Unreachable, Busy) as error:
            err.print(f"[yellow]![/] {escaped(str(error))} Trying again.")
            time.sleep(every_s)


def _row(firstsight: Firstsight, file: Path) -> dict[str, object]:
    """The answer with the file's name before it, or what is wrong with the file."""
    try:
        answer = firstsight.classify(file)
    except OSError as error:
        return {"file": str(file), "fault": str(error)}
    except Problem as problem:
        if problem.details.status not in OF_THE_PICTURE:
            raise
        return {"file": str(file), "fault": str(problem)}
    return {"file": str(file), **answer.as_json()}


class _write_csv:  # noqa: N801  # stands where `write_json` may
    """Writes rows, the names of the columns first; each is out before the next picture."""

    def __init__(self) -> None:
        self._writer = csv.DictWriter(sys.stdout, COLUMNS, extrasaction="ignore")
        self._writer.writeheader()

    def __call__(self, row: dict[str, object]) -> None:
        best = Answer.model_validate(row).candidates[:1] if "outcome" in row else []
        figures = {name: getattr(one, name) for one in best for name in ("probability", "similarity", "threshold")}
        self._writer.writerow({**row, **figures})
        sys.stdout.flush()
