"""`evaluate`: how well it does on pictures of one's own, against what is enrolled or each picture against all the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.client import DEFAULT_URL, Firstsight, Problem
from app.commands.calling import (
    Exit,
    JobsOption,
    JsonOption,
    KeyOption,
    UrlOption,
    calling,
    err,
    escaped,
    fail,
    faults_told,
    out,
    write_json,
)
from app.commands.evaluation import Asked, Evaluation, Shots
from app.commands.folder import OF_THE_PICTURE, files_by_class, is_picture
from app.commands.private import private_service
from app.commands.shown import evaluation_text
from app.domain.scoring import interval_of

FOREIGN = "_none"
CANDIDATES = 100  # the most that an answer has: a suggested threshold needs the similarities to every class
SHOTS = (1, 2, 3, 5)
Classes = Mapping[str, Sequence[Path]]
Value = TypeVar("Value")


def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, show_default=False)],
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", help="Ask each picture against all the others of DIR, in a service of its own.")
    ] = False,
    html: Annotated[Path | None, typer.Option("--html", metavar="OUT", help="Write a page with plots and pictures.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Set the suggested thresholds.")] = False,
    min_recall: Annotated[
        float | None, typer.Option(min=0, max=1, help="End with 6 if fewer pictures are matched right.")
    ] = None,
    min_precision: Annotated[float | None, typer.Option(min=0, max=1, help="End with 6 if fewer matches are right.")] = None,
    max_false_accepts: Annotated[
        float | None, typer.Option(min=0, max=1, help="End with 6 if more of _none are matched.")
    ] = None,
    jobs: JobsOption = 4,
    as_json: JsonOption = False,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """Measure it on pictures of your own: a sub-folder for each class, and _none for pictures of nothing enrolled."""
    if apply and leave_one_out:
        raise typer.BadParameter("--apply sets thresholds of what is enrolled, and --leave-one-out does not ask that.")
    classes, foreign = files_by_class(folder), _foreign_in(folder)
    if not classes and not foreign:
        fail(f"{folder} has no folders of pictures.", Exit.REFUSED)
    if leave_one_out:
        evaluation = _left_out(classes, foreign)
    else:
        with calling(url, key) as firstsight:
            evaluation = _against_enrolled(firstsight, classes, foreign, jobs=jobs)
            if apply:
                _apply(firstsight, evaluation)
    _show(evaluation, folder, html=html, as_json=as_json)
    _hold(evaluation, min_recall=min_recall, min_precision=min_precision, max_false_accepts=max_false_accepts)
    if evaluation.failed:
        raise typer.Exit(Exit.PARTLY)


def _foreign_in(folder: Path) -> list[Path]:
    there = folder / FOREIGN
    return sorted(filter(is_picture, there.rglob("*"))) if there.is_dir() else []


# Asking


def _against_enrolled(firstsight: Firstsight, classes: Classes, foreign: Sequence[Path], *, jobs: int) -> Evaluation:
    enrolled = {one.class_name for one in firstsight.classes()}
    if unknown := sorted(classes.keys() - enrolled):
        shown = ", ".join(unknown[:5]) + (" …" if len(unknown) > 5 else "")
        err.print(f"[yellow]![/] {escaped(f'Not enrolled, so taken for foreign: {shown}')}")
    truths = [(file, name if name in enrolled else None) for name, files in classes.items() for file in files]
    truths += [(file, None) for file in foreign]
    failed: dict[str, str] = {}
    with _progress("asking", len(truths)) as step, ThreadPoolExecutor(jobs) as pool:
        ask = partial(_ask, firstsight, failed)
        asked = [one for one in pool.map(lambda pair: step(ask(*pair)), truths) if one is not None]
    return Evaluation(asked, failed=failed)


def _ask(firstsight: Firstsight, failed: dict[str, str], file: Path, truth: str | None) -> Asked | None:
    """None, and a word in `failed`, for a picture that cannot be used."""
    try:
        return Asked(file, truth, firstsight.classify(file, top_k=CANDIDATES))
    except OSError as error:
        failed[str(file)] = str(error.strerror)
    except Problem as problem:
        if problem.details.status not in OF_THE_PICTURE:
            raise
        failed[str(file)] = str(problem)
    return None


def _left_out(classes: Classes, foreign: Sequence[Path]) -> Evaluation:
    """All pictures are enrolled; each is taken out, asked about, and put back. Then anew with fewer examples a class."""
    failed: dict[str, str] = {}
    with faults_told(), private_service() as firstsight:
        ids = _enrol_all(firstsight, classes, failed)
        asked = []
        with _progress("leaving one out", len(ids) + len(foreign)) as step:
            alone = {name for name, files in classes.items() if sum(file in ids for file in files) < 2}
            for name, files in classes.items():
                for file in files:
                    if file in ids and name not in alone:
                        asked.append(_without(firstsight, name, file, ids[file]))
                    step(None)
            asked += [one for file in foreign if (one := step(_ask(firstsight, failed, file, None))) is not None]
        if alone:
            err.print(f"[yellow]![/] {len(alone)} classes have one picture only: they were there to compete, and were not asked.")
        return Evaluation(asked, _shots(firstsight, classes, ids), failed)


def _enrol_all(firstsight: Firstsight, classes: Classes, failed: dict[str, str]) -> dict[Path, str]:
    """File -> the id of its example."""
    ids: dict[Path, str] = {}
    with _progress("enrolling", sum(map(len, classes.values()))) as step:
        for name, files in classes.items():
            for file in files:
                try:
                    ids[file] = firstsight.enrol(name, file).examples[0].id
                except (Problem, OSError) as fault:
                    failed[str(file)] = str(fault)
                step(None)
    return ids


def _without(firstsight: Firstsight, name: str, file: Path, example_id: str) -> Asked:
    firstsight.remove_example(name, example_id)
    answer = firstsight.classify(file, top_k=CANDIDATES)
    firstsight.enrol(name, file)
    return Asked(file, name, answer)


def _shots(firstsight: Firstsight, classes: Classes, ids: Mapping[Path, str]) -> list[Shots]:
    """With more and more examples a class, the same pictures asked each time: those that are never an example."""
    usable = {name: files for name, given in classes.items() if (files := [file for file in given if file in ids])}
    most = _most_shots([len(files) for files in usable.values()])
    taught = {name: files for name, files in usable.items() if len(files) >= 2 * most > 0}
    queries = [(name, file) for name, files in taught.items() for file in files[most:]]
    rounds = [shots for shots in SHOTS if shots <= most]
    for name in usable:
        firstsight.remove_class(name)
    found = []
    with _progress("one more example", len(queries) * len(rounds)) as step:
        for before, shots in zip((0, *rounds), rounds, strict=False):
            for name, files in taught.items():
                for file in files[before:shots]:
                    firstsight.enrol(name, file)
            right = sum(step(firstsight.classify(file)).decision == name for name, file in queries)
            if (share := interval_of(right, len(queries))) is not None:
                found.append(Shots(shots, share))
    return found


def _most_shots(pictures: Sequence[int]) -> int:
    """The most examples a class for which two classes have as many pictures again to ask about; 0 where none."""
    return max((shots for shots in SHOTS if sum(count >= 2 * shots for count in pictures) >= 2), default=0)


# Telling


def _show(evaluation: Evaluation, folder: Path, *, html: Path | None, as_json: bool) -> None:
    if html is not None:
        from app.commands.evaluation_page import page_of  # pillow takes a while to load

        try:
            html.write_text(page_of(evaluation, title=folder.resolve().name), encoding="utf-8")
        except OSError as error:
            fail(f"{html}: {error.strerror}.", Exit.REFUSED)
    if as_json:
        write_json(evaluation.as_json())
    else:
        out.print(evaluation_text(evaluation))
        if html is not None:
            err.print(f"The page is {escaped(str(html))}.")


def _apply(firstsight: Firstsight, evaluation: Evaluation) -> None:
    for one in evaluation.suggestions:
        firstsight.change_class(one.class_name, threshold=one.threshold)
    err.print(
        f"[green]✓[/] {len(evaluation.suggestions)} thresholds are set; `firstsight classes threshold NAME computed` undoes one."
    )


def _hold(
    evaluation: Evaluation, *, min_recall: float | None, min_precision: float | None, max_false_accepts: float | None
) -> None:
    """Ends with BELOW_GATE where a measure is worse than was asked for, or could not be taken."""
    gates = {
        "recall": (evaluation.recall, min_recall, 1),
        "precision": (evaluation.precision, min_precision, 1),
        "false accepts": (evaluation.false_accepts, max_false_accepts, -1),
    }
    worse = []
    for name, (measured, limit, better) in gates.items():
        if limit is None:
            continue
        if measured is None:
            worse.append(f"{name} cannot be told from these pictures")
        elif better * measured.share < better * limit:
            worse.append(f"{name} is {measured.share:.1%}, not {limit:.1%}")
    if worse:
        fail("Below the gate: " + "; ".join(worse) + ".", Exit.BELOW_GATE)


class _Step:
    """Moves the bar on, and hands on what it is called with."""

    def __init__(self, progress: Progress, total: int, text: str) -> None:
        self._progress, self._task = progress, progress.add_task(text, total=total)

    def __call__(self, value: Value) -> Value:
        self._progress.advance(self._task)
        return value


@contextmanager
def _progress(text: str, total: int) -> Iterator[_Step]:
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err, transient=True
    ) as progress:
        yield _Step(progress, total, text)
