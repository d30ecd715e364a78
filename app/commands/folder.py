"""`enrol-folder`: a folder of pictures becomes classes. Stopped and run again, it does not send again what the service has.

Nothing is noted anywhere: the id of an example is made of its bytes and box (docs/adr/0002), so the service's own list says what
is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Annotated, Literal
from unicodedata import normalize

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.client import DEFAULT_URL, Example, Firstsight, Problem, Warned
from app.commands.calling import Exit, JobsOption, JsonOption, KeyOption, UrlOption, calling, err, escaped, fail, out, write_json

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
OF_THE_PICTURE = frozenset({413, 415, 422})  # statuses: too large, of no known format, broken or too small
MOST_WARNED = 12  # pictures whose warnings stand on a terminal
Happened = Literal["enrolled", "there", "failed"]


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of one file."""

    class_name: str
    file: Path
    happened: Happened
    warnings: Sequence[Warned] = ()
    fault: str | None = None

    def as_json(self) -> dict[str, object]:
        warnings = [warning.as_json() for warning in self.warnings]
        told: dict[str, object] = {
            "class": self.class_name,
            "file": str(self.file),
            "result": self.happened,
            "warnings": warnings,
        }
        return told if self.fault is None else told | {"fault": self.fault}


@dataclass(slots=True)
class Tally:
    results: list[FileResult] = field(default_factory=list)

    def count(self, happened: Happened) -> int:
        return sum(result.happened == happened for result in self.results)


def enrol_folder(
    folder: Annotated[Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would happen, and store nothing.")] = False,
    jobs: JobsOption = 4,
    as_json: JsonOption = False,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """Enrol a folder: a sub-folder for each class, or a file for each. Stop it and run it again as you like."""
    files = files_by_class(folder)
    if not files:
        fail(
            f"{folder} has no pictures, and no folders of pictures. Endings that are known: {', '.join(sorted(ENDINGS))}.",
            Exit.REFUSED,
        )
    tally, stop = Tally(), Event()
    with calling(url, key) as firstsight:
        try:
            _enrol_all(firstsight, files, tally, stop=stop, jobs=jobs, dry_run=dry_run, as_json=as_json)
        except KeyboardInterrupt:
            fail(f"Stopped after {len(tally.results)} pictures. Run it again to go on where it was.", Exit.STOPPED)
    if not as_json:
        _sum_up(tally, len(files), dry_run=dry_run)
    if failed := tally.count("failed"):
        raise typer.Exit(Exit.PARTLY if failed < len(tally.results) else Exit.REFUSED)


def files_by_class(folder: Path) -> Mapping[str, Sequence[Path]]:
    """Class name -> its pictures: those in the sub-folder of that name, and the file of that name beside the sub-folders."""
    found: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith((".", "_")):  # _none: pictures of nothing, for `firstsight evaluate`
            continue
        files = sorted(filter(is_picture, entry.rglob("*"))) if entry.is_dir() else [entry] if is_picture(entry) else []
        if files:
            found.setdefault(normalize("NFC", entry.name if entry.is_dir() else entry.stem), []).extend(files)
    return found


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()


def is_of(example: Example, data: bytes) -> bool:
    """Whether an example was made of these bytes; its id says so."""
    box = example.box
    region = f"{box.x},{box.y},{box.width},{box.height};"
    return hashlib.sha256(region.encode() + data).hexdigest()[:32] == example.id


def _enrol_all(
    firstsight: Firstsight,
    files: Mapping[str, Sequence[Path]],
    tally: Tally,
    *,
    stop: Event,
    jobs: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Classes side by side, the pictures of one class in turn: two enrolments of a class would only wait for each other."""
    there = {one.class_name for one in firstsight.classes()}
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err, transient=True
    ) as progress:
        bar = progress.add_task("enrolling", total=sum(map(len, files.values())))

        def note(result: FileResult) -> None:
            tally.results.append(result)
            progress.advance(bar)
            if as_json:
                write_json(result.as_json())
            elif result.fault:
                progress.console.print(f"[bold red]✗[/] {escaped(f'{result.file}: {result.fault}')}")

        def enrol_class(name: str) -> None:
            known = list(firstsight.examples(name)) if name in there else []
            for file in files[name]:
                if stop.is_set():
                    return
                note(_enrol_one(firstsight, name, file, known, dry_run=dry_run))

        _run_all(enrol_class, list(files), jobs=jobs, stop=stop)


def _run_all(work: Callable[[str], None], names: Sequence[str], *, jobs: int, stop: Event) -> None:
    """Does the work for each name. At the first fault, and at Ctrl-C, each ends with its picture, and no more begins."""

    def begin(name: str) -> None:
        try:
            work(name)
        except BaseException:
            stop.set()  # before this thread takes the next name
            raise

    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(begin, name) for name in names}
        try:
            for done in _as_done(running):
                done.result()
        finally:
            stop.set()
            for waiting in running:
                waiting.cancel()


def _as_done(running: set[Future[None]]) -> Iterator[Future[None]]:
    left = running
    while left:
        done, left = wait(left, return_when=FIRST_COMPLETED)
        yield from done


def _enrol_one(firstsight: Firstsight, name: str, file: Path, known: Sequence[Example], *, dry_run: bool) -> FileResult:
    """A picture that cannot be used is a result; any other fault is raised, since it would meet all of them."""
    try:
        data = file.read_bytes()
    except OSError as error:
        return FileResult(name, file, "failed", fault=str(error.strerror))
    if any(is_of(example, data) for example in known):
        return FileResult(name, file, "there")
    try:
        report = firstsight.enrol(name, data, dry_run=dry_run)
    except Problem as problem:
        if problem.details.status not in OF_THE_PICTURE:
            raise
        return FileResult(name, file, "failed", fault=str(problem))
    return FileResult(name, file, "enrolled", report.examples[0].warnings)


def _sum_up(tally: Tally, classes: int, *, dry_run: bool) -> None:
    enrolled, there, failed = (tally.count(happened) for happened in ("enrolled", "there", "failed"))
    verb = "would be enrolled" if dry_run else "enrolled"
    out.print(f"[green]✓[/] {enrolled} pictures of {classes} classes {verb}, {there} were there, {failed} failed.")
    warned = [result for result in tally.results if result.warnings]
    if warned:
        rest = f"; the first {MOST_WARNED}, --json has all" if len(warned) > MOST_WARNED else ""
        out.print(f"{len(warned)} of them come with warnings{rest}. Look at these pictures:")
    for result in warned[:MOST_WARNED]:
        out.print(f"[yellow]![/] {escaped(f'{result.class_name}/{result.file.name}')}", soft_wrap=True)
        for warning in result.warnings:
            out.print(f"  {escaped(warning.detail)}", soft_wrap=True)
