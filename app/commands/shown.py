"""Answers as a person reads them on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from app.client import Answer, Candidate, ClassInfo, Detections, EnrolmentReport, Outcome
from app.commands.evaluation import WANTED_RECALL, Evaluation

MOST_ROWS, MOST_PAIRS = 15, 10  # of what stands on a terminal; --html and --json have all

COLOURS: dict[Outcome, str] = {"match": "green", "doubtful": "yellow", "unknown": "bright_black"}
MARKS: dict[Outcome, str] = {"match": "✓", "doubtful": "?", "unknown": "·"}
REASONS = {
    "below_threshold": "just below its threshold",
    "ambiguous": "two classes cannot be told apart",
    "no_classes": "nothing is enrolled",
}


def report_text(report: EnrolmentReport, files: Sequence[Path]) -> RenderableType:
    """An enrolment: the class, each picture with its warnings, what came out."""
    verb = "would know" if report.dry_run else "knows"
    head = Text.assemble(
        ("✓ ", "green"), f"{verb} ", (report.class_name, "bold"), (f" · version {report.version}", "bright_black")
    )
    lines = [head]
    for file, example in zip(files, report.examples, strict=True):
        lines.append(Text.assemble("  ", file.name, (f"  {example.id[:8]}", "bright_black")))
        lines += [Text.assemble(("  ! ", "yellow"), warning.detail) for warning in example.warnings]
    nearest = ", ".join(f"{one.class_name} {one.similarity:.2f}" for one in report.nearest[:3])
    lines.append(Text(f"  threshold {report.threshold:.2f}" + (f" · most alike: {nearest}" if nearest else ""), "bright_black"))
    return Group(*lines)


def answer_table(file: Path, answer: Answer) -> RenderableType:
    """A picture, its decision, and the candidates behind it."""
    colour = COLOURS[answer.outcome]
    said = answer.decision if answer.decision is not None else answer.outcome
    why = f" · {REASONS[answer.reason]}" if answer.reason in REASONS and answer.outcome != "unknown" else ""
    head = Text.assemble((f"{MARKS[answer.outcome]} ", colour), f"{file.name}  ", (said, f"bold {colour}"), (why, "bright_black"))
    table = _table("", "probability", "similarity", "threshold", "print")
    for candidate in answer.candidates:
        style = "" if candidate.accepted else "bright_black"
        table.add_row(f"  {candidate.class_name}", *_figures(candidate), style=style)
    return Group(head, table) if answer.candidates else head


def detection_table(found: Detections) -> RenderableType:
    size = f"{found.image.width} × {found.image.height}"
    if not found.detections:
        return Text.assemble(("· ", "bright_black"), f"Nothing that is enrolled was found in the {size} pixels.")
    table = _table("found", "probability", "similarity", "threshold", "print", "box")
    for one in found.detections:
        mark = Text(f"{MARKS[one.outcome]} {one.class_name}", COLOURS[one.outcome])
        box = one.box
        table.add_row(mark, *_figures(one), f"{box.x},{box.y},{box.width},{box.height}")  # as --box takes it
    return table


def class_table(classes: Sequence[ClassInfo]) -> RenderableType:
    table = _table("class", "examples", "threshold", "version")
    for one in classes:
        threshold = "–" if one.threshold is None else f"{one.threshold:.2f}"
        table.add_row(Text(one.class_name), str(one.examples), threshold, str(one.version))
    return table


def _figures(candidate: Candidate) -> tuple[str, str, str, str]:
    """Probability, similarity, threshold, and how many points prove it."""
    points = max((shown.verified.points for shown in candidate.evidence if shown.verified), default=0)
    proof = f"{points} points" if points else "–"
    return f"{candidate.probability:.0%}", f"{candidate.similarity:.2f}", f"{candidate.threshold:.2f}", proof


def _table(first: str, *rest: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    table.add_column(first, overflow="fold", min_width=16)
    for name in rest:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def evaluation_text(evaluation: Evaluation) -> RenderableType:
    """The figures, the classes that do worst, and what to do about it."""
    at = evaluation.at_wanted_recall
    summary = _table(f"{len(evaluation.known)} pictures of classes, {len(evaluation.foreign)} foreign", "share", "95 % interval")
    for name, share in {
        "matched right": evaluation.recall,
        "right among matches": evaluation.precision,
        "first candidate right": evaluation.first_right,
        "foreign matched": evaluation.false_accepts,
    }.items():
        if share is not None:
            summary.add_row(name, f"{share.share:.1%}", f"{share.low:.1%} – {share.high:.1%}")
    summary.add_row(f"precision at {WANTED_RECALL:.0%} recall", "not reached" if at is None else f"{at.precision:.1%}", "")
    parts: list[RenderableType] = [summary]
    if evaluation.shots:
        steps = ", ".join(f"{one.examples}: {one.right.share:.0%}" for one in evaluation.shots)
        parts.append(Text(f"\nmatched right by examples a class: {steps}"))
    if evaluation.rows:
        parts += [Text(""), _rows_table(evaluation)]
    for pair in evaluation.confusions[:MOST_PAIRS]:
        names = f"{pair.truth or 'nothing enrolled'} taken for {pair.said}"
        parts.append(Text.assemble(("✗ ", "red"), f"{len(pair.files)} × {names}: ", (pair.files[0].name, "bright_black")))
    if evaluation.suggestions:
        parts.append(
            Text(
                f"{len(evaluation.suggestions)} classes would do with another threshold: see --json or --html; --apply sets them."
            )
        )
    for file, fault in (evaluation.failed or {}).items():
        parts.append(Text.assemble(("! ", "yellow"), f"{file} was not asked: {fault}"))
    return Group(*parts)


def _rows_table(evaluation: Evaluation) -> RenderableType:
    """The classes with the fewest right answers first."""
    table = _table("class", "pictures", "right", "wrong", "doubtful", "unknown", "taken for it")
    worst = sorted(evaluation.rows, key=lambda row: (row.right / row.pictures, -row.taken_for_it))
    for row in worst[:MOST_ROWS]:
        figures = (row.pictures, row.right, row.wrong, row.doubtful, row.unknown, row.taken_for_it)
        table.add_row(Text(row.class_name), *map(str, figures))
    if len(worst) > MOST_ROWS:
        table.caption = f"and {len(worst) - MOST_ROWS} classes that do better"
    return table
