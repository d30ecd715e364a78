"""`enrol`, `classify` and `detect`: the three things that are done with pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from app.client import DEFAULT_URL, Answer, Firstsight, Problem
from app.commands.calling import (
    ClassFilter,
    Exit,
    JobsOption,
    JsonOption,
    KeyOption,
    UrlOption,
    calling,
    err,
    escaped,
    file_fault,
    out,
    picture_of,
    write_json,
)
from app.commands.completion import class_names
from app.commands.shown import answer_table, detection_table, report_text

Files = Annotated[list[Path], typer.Argument(metavar="FILES…", help="Pictures.", show_default=False)]
BoxOption = Annotated[str | None, typer.Option("--box", help="x,y,width,height: what is meant in the picture.")]
ClassName = Annotated[str, typer.Argument(metavar="NAME", help="The class.", autocompletion=class_names, show_default=False)]


def enrol(
    name: ClassName,
    files: Files,
    box: BoxOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would happen, and store nothing.")] = False,
    as_json: JsonOption = False,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """Show pictures of a class; from then on it is recognised."""
    if box is not None and len(files) > 1:
        raise typer.BadParameter("A --box is for one picture: enrol them one by one.")
    with calling(url, key) as firstsight:
        report = firstsight.enrol(name, *(picture_of(file, box) for file in files), dry_run=dry_run)
    if as_json:
        write_json(report.as_json())
    else:
        out.print(report_text(report, files))


def classify(
    files: Files,
    box: BoxOption = None,
    classes: ClassFilter = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, max=100, help="How many candidates to show.")] = 3,
    jobs: JobsOption = 4,
    as_json: JsonOption = False,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """Say what pictures show: a class, or that it is doubtful or unknown."""
    failed = 0
    with calling(url, key) as firstsight:
        ask = partial(_answer_to, firstsight, box=box, classes=classes or (), top_k=top_k)
        for file, answer in _side_by_side(ask, files, jobs):
            failed += isinstance(answer, str)
            _show_answer(file, answer, as_json=as_json)
    if failed:
        raise typer.Exit(Exit.REFUSED if len(files) == 1 else Exit.PARTLY)


def detect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A picture of a scene.", show_default=False)],
    draw: Annotated[
        Path | None, typer.Option("--draw", metavar="OUT", help="Write the picture with what was found in it.")
    ] = None,
    box: BoxOption = None,
    classes: ClassFilter = None,
    tiles: Annotated[Literal["auto", "on", "off"], typer.Option(help="on: look for small things too.")] = "auto",
    as_json: JsonOption = False,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """Find what a scene shows, and where."""
    with calling(url, key) as firstsight:
        found = firstsight.detect(picture_of(file, box), classes=classes or (), tiles=tiles)
        if draw is not None:
            from app.commands.drawing import draw_detections  # pillow takes a while to load

            draw_detections(file, found.detections, to=draw)
    if as_json:
        write_json(found.as_json())
    else:
        out.print(detection_table(found))


def _side_by_side(ask: partial[Answer | str], files: Sequence[Path], jobs: int) -> Iterator[tuple[Path, Answer | str]]:
    with ThreadPoolExecutor(jobs) as pool:
        yield from zip(files, pool.map(ask, files), strict=True)


def _answer_to(firstsight: Firstsight, file: Path, *, box: str | None, classes: Sequence[str], top_k: int) -> Answer | str:
    """The answer, or what is wrong with this one picture. Other faults are of the service: they end the command."""
    try:
        return firstsight.classify(picture_of(file, box), classes=classes, top_k=top_k)
    except OSError as error:
        return file_fault(error)
    except Problem as problem:
        if not (problem.details.field or "").startswith(("image", "body")):  # such as a class to choose from that is not there
            raise
        return f"{file}: {problem}"


def _show_answer(file: Path, answer: Answer | str, *, as_json: bool) -> None:
    match answer:
        case Answer() if as_json:
            write_json({"file": str(file), **answer.as_json()})
        case Answer():
            out.print(answer_table(file, answer))
        case sentence:
            err.print(f"[bold red]✗[/] {escaped(sentence)}")
