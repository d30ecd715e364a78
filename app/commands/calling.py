"""What all commands that call a service share: how it is found, what is written where, and how a fault ends the command.

Answers go to standard output, everything else to standard error: what is piped on is never anything but the answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from app.client import Box, Busy, Firstsight, FirstsightError, NotAllowed, NotFound, Picture, Problem, Unreachable

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class Exit(IntEnum):
    """How a command can end; README.md, "The command line", has the table."""

    DONE = 0
    REFUSED = 1  # the service refused, or a file cannot be used
    USAGE = 2  # typer's own
    UNREACHABLE = 3  # nobody answers, or the service is busy after every retry
    NOT_ALLOWED = 4
    PARTLY = 5  # of many pictures, some failed
    BELOW_GATE = 6  # an evaluation is worse than was asked for
    STOPPED = 130  # by Ctrl-C; what was done is done


UrlOption = Annotated[str, typer.Option("--url", envvar="FIRSTSIGHT_URL", help="The service.", show_default=True)]
KeyOption = Annotated[
    str | None, typer.Option("--key", envvar="FIRSTSIGHT_API_KEY", help="An API key, where the service runs with keys.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs: the service's own JSON.")]
ClassFilter = Annotated[list[str] | None, typer.Option("--class", "-c", help="Consider this class only; may be repeated.")]
JobsOption = Annotated[int, typer.Option("--jobs", "-j", min=1, max=32, help="Pictures on their way at once.")]


@contextmanager
def calling(url: str, key: str | None) -> Iterator[Firstsight]:
    """A client of the service, and its faults told."""
    with Firstsight(url, key=key) as firstsight, faults_told():
        yield firstsight


@contextmanager
def faults_told() -> Iterator[None]:
    """What goes wrong with a call, or with a file, ends the command with a sentence and a code."""
    try:
        yield
    except FirstsightError as error:
        fail(sentence_of(error), code_of(error))
    except OSError as error:
        fail(file_fault(error), Exit.REFUSED)


def fail(sentence: str, code: Exit) -> NoReturn:
    err.print(f"[bold red]✗[/] {escaped(sentence)}")
    raise typer.Exit(code)


def code_of(error: FirstsightError) -> Exit:
    match error:
        case NotAllowed():
            return Exit.NOT_ALLOWED
        case Unreachable() | Busy():
            return Exit.UNREACHABLE
        case _:
            return Exit.REFUSED


def sentence_of(error: FirstsightError) -> str:
    """What went wrong, and what to do about it."""
    match error:
        case Unreachable():
            return f"{error} Start it with `firstsight serve`, or name another with --url or FIRSTSIGHT_URL."
        case NotAllowed():
            return f"{error} Give one with --key or FIRSTSIGHT_API_KEY; `firstsight keys create` makes one on the server."
        case Busy():
            return f"{error} Try again in a moment."
        case NotFound(type="unknown-class"):
            return f"{error} `firstsight classes list` shows those there are."
        case Problem(details=details, request_id=request_id) if details.type.endswith("internal-error"):
            return f"{error} It was request {request_id}."
        case _:
            return str(error)


def file_fault(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}." if error.filename else str(error)


def picture_of(file: Path, box: str | None) -> Picture:
    """BadParameter, which typer tells, for what is no box."""
    return Picture(file, None if box is None else box_of(box))


def box_of(text: str) -> Box:
    try:
        x, y, width, height = (int(number) for number in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no box: four whole numbers of pixels, x,y,width,height, such as 10,20,300,200."
        ) from None
    return Box(x, y, width, height)


def write_json(value: Any) -> None:
    """One line, so that many answers are JSON lines."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def escaped(text: str) -> str:
    """Names and paths are people's: in brackets they would be styles to rich."""
    return text.replace("[", r"\[")
