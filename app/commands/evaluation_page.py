"""An evaluation as one page of HTML that needs nothing else: style, plots and small pictures are in it, and no script."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from app.commands.drawing import thumbnail
from app.commands.evaluation import FALSE_ACCEPTS, PICTURES_OF_A_PAIR, WANTED_RECALL, Evaluation
from app.domain.scoring import Interval

THUMBNAIL_PX = 112
MOST_PAIRS = 40
PLOT_WIDTH, PLOT_HEIGHT, MARGIN, MARGIN_RIGHT = 420, 300, 48, 20

STYLE = Path(__file__).with_name("evaluation.css")


def page_of(evaluation: Evaluation, *, title: str) -> str:
    sections = "".join(
        (
            _figures(evaluation),
            _plots(evaluation),
            _confusions(evaluation),
            _classes(evaluation),
            _suggestions(evaluation),
            _failures(evaluation),
        )
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} · Firstsight evaluation</title><style>{STYLE.read_text()}</style></head><body>"
        f'<p class="soft">Firstsight evaluation</p><h1>{escape(title)}</h1><p class="soft">{len(evaluation.known)} pictures of '
        f"{len(evaluation.rows)} classes, {len(evaluation.foreign)} of nothing enrolled. Model set {_model_of(evaluation)}.</p>"
        f"{sections}</body></html>\n"
    )


def _model_of(evaluation: Evaluation) -> str:
    """Of which the similarities and thresholds are: with another they mean something else."""
    return escape(", ".join(sorted({one.answer.model for one in evaluation.asked}))) or "unknown"


def _percent(share: float, *, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _figures(evaluation: Evaluation) -> str:
    at = evaluation.at_wanted_recall
    reached = "–" if at is None else _percent(at.precision)
    why = "not reached: fewer first candidates are right" if at is None else "if every first candidate counted"
    tiles = [
        _tile("matched right", evaluation.recall),
        _tile("right among matches", evaluation.precision),
        _tile("first candidate right", evaluation.first_right),
        _tile("foreign matched", evaluation.false_accepts),
        f"<div><strong>{reached}</strong>precision at {_percent(WANTED_RECALL)} recall<br><span>{why}</span></div>",
    ]
    return f'<div class="figures">{"".join(tiles)}</div>'


def _tile(name: str, share: Interval | None) -> str:
    if share is None:
        return f"<div><strong>–</strong>{name}<br><span>no such pictures</span></div>"
    return (
        f"<div><strong>{_percent(share.share, digits=1)}</strong>{name}<br>"
        f"<span>95 % interval {100 * share.low:.1f} to {100 * share.high:.1f}</span></div>"
    )


# Plots: from 0 to 1 upwards, drawn as text


def _plots(evaluation: Evaluation) -> str:
    plots = []
    if evaluation.curve:
        line = " ".join(f"{_x(point.recall):.1f},{_y(point.precision):.1f}" for point in evaluation.curve)
        wanted = f'<line class="wanted" x1="{_x(WANTED_RECALL)}" x2="{_x(WANTED_RECALL)}" y1="{_y(0)}" y2="{_y(1)}"/>'
        drawn = f'{wanted}<polyline class="line" points="{line}"/>{_as_it_decides(evaluation)}'
        plots.append(_plot("Precision over recall", "recall", drawn, [(share / 4, _percent(share / 4)) for share in range(5)]))
    if evaluation.shots:
        plots.append(_plot("What one more example is worth", "examples a class", *_shots_drawn(evaluation)))
    return f'<h2>Curves</h2><div class="plots">{"".join(plots)}</div>{_worth(evaluation)}' if plots else ""


def _as_it_decides(evaluation: Evaluation) -> str:
    """Where its thresholds stand on the plot: the curve is of first candidates by probability, accepted or not."""
    if evaluation.recall is None or evaluation.precision is None:
        return ""
    x, y = _x(evaluation.recall.share), _y(evaluation.precision.share)
    side, anchor = (-9, "end") if evaluation.recall.share > 1 / 2 else (9, "start")
    return (
        f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
        f'<text class="strong" x="{x + side:.1f}" y="{y + 18:.1f}" text-anchor="{anchor}">as it decides now</text>'
    )


def _shots_drawn(evaluation: Evaluation) -> tuple[str, list[tuple[float, str]]]:
    most = max(one.examples for one in evaluation.shots)
    places = [(one.examples / (most + 1), one) for one in evaluation.shots]
    ranges = "".join(
        f'<line class="range" x1="{_x(x):.1f}" x2="{_x(x):.1f}" y1="{_y(one.right.low):.1f}" y2="{_y(one.right.high):.1f}"/>'
        f'<circle class="point" cx="{_x(x):.1f}" cy="{_y(one.right.share):.1f}" r="4.5"/>'
        for x, one in places
    )
    line = " ".join(f"{_x(x):.1f},{_y(one.right.share):.1f}" for x, one in places)
    return f'<polyline class="line" points="{line}"/>{ranges}', [(x, str(one.examples)) for x, one in places]


def _worth(evaluation: Evaluation) -> str:
    told = [
        f"from {before.examples} to {after.examples} examples: "
        f"{100 * (after.right.share - before.right.share) / (after.examples - before.examples):+.1f} points each"
        for before, after in zip(evaluation.shots, evaluation.shots[1:], strict=False)
    ]
    return f'<p class="soft">{"; ".join(told).capitalize()}.</p>' if told else ""


def _plot(title: str, below: str, drawn: str, ticks: Sequence[tuple[float, str]]) -> str:
    grid = "".join(
        f'<line class="axis" x1="{_x(0)}" x2="{_x(1)}" y1="{_y(share / 4)}" y2="{_y(share / 4)}"/>'
        f'<text x="{_x(0) - 8}" y="{_y(share / 4) + 4}" text-anchor="end">{_percent(share / 4)}</text>'
        for share in range(5)
    )
    names = "".join(f'<text x="{_x(at):.1f}" y="{_y(0) + 18}" text-anchor="middle">{name}</text>' for at, name in ticks)
    axis = f'<text x="{_x(0.5)}" y="{PLOT_HEIGHT - 4}" text-anchor="middle">{below}</text>'
    return (
        f'<figure><figcaption>{title}</figcaption><svg viewBox="0 0 {PLOT_WIDTH} {PLOT_HEIGHT}" role="img" aria-label="{title}">'
        f"{grid}{names}{axis}{drawn}</svg></figure>"
    )


def _x(share: float) -> float:
    return MARGIN + share * (PLOT_WIDTH - MARGIN - MARGIN_RIGHT)


def _y(share: float) -> float:
    return PLOT_HEIGHT - MARGIN - share * (PLOT_HEIGHT - MARGIN - 12)


# Tables and pictures


def _confusions(evaluation: Evaluation) -> str:
    if not evaluation.confusions:
        return '<h2>Confused pairs</h2><p class="good">None: no picture was matched as another class.</p>'
    pairs = "".join(
        f'<div class="pair"><p><strong>{len(pair.files)} ×</strong> {escape(pair.truth or "nothing enrolled")} '
        f'<span class="bad">taken for</span> {escape(pair.said)}</p>'
        f'<div class="pictures">{"".join(_pictures(pair.files[:PICTURES_OF_A_PAIR]))}'
        f"{_taken_for(evaluation, pair.said)}</div></div>"
        for pair in evaluation.confusions[:MOST_PAIRS]
    )
    more = len(evaluation.confusions) - MOST_PAIRS
    rest = f'<p class="soft">And {more} more pairs, of fewer pictures.</p>' if more > 0 else ""
    return f'<h2>Confused pairs</h2><div class="pairs">{pairs}</div>{rest}'


def _taken_for(evaluation: Evaluation, class_name: str) -> str:
    """A picture of the class that was said, where the folder has one."""
    one = next((one.file for one in evaluation.known if one.truth == class_name), None)
    return "" if one is None else f'<span class="versus">≈</span>{"".join(_pictures([one]))}'


def _pictures(files: Sequence[Path]) -> Iterator[str]:
    for file in files:
        try:
            data = base64.b64encode(thumbnail(file, side_px=THUMBNAIL_PX)).decode()
        except OSError:  # what this machine cannot read stands there by its name
            yield f"<span>{escape(file.name)}</span>"
        else:
            yield f'<img src="data:image/jpeg;base64,{data}" alt="{escape(file.name)}" title="{escape(str(file))}">'


def _classes(evaluation: Evaluation) -> str:
    rows = [
        (row.class_name, row.pictures, row.right, row.wrong, row.doubtful, row.unknown, row.taken_for_it)
        for row in sorted(evaluation.rows, key=lambda row: row.right / row.pictures)
    ]
    why = '<p class="soft">Those with the fewest right answers first: more examples help them most.</p>'
    names = ("class", "pictures", "right", "wrong", "doubtful", "unknown", "others taken for it")
    return _table("Classes", names, rows) + why if rows else ""


def _suggestions(evaluation: Evaluation) -> str:
    rows = [
        (one.class_name, f"{one.now:.2f}", f"{one.threshold:.2f}", _percent(one.own_accepted_now), _percent(one.own_accepted))
        for one in evaluation.suggestions
    ]
    names = ("class", "threshold now", "suggested", "own pictures reach it now", "then")
    why = (
        f'<p class="soft">The lowest that at most {_percent(FALSE_ACCEPTS)} of the other pictures here would reach by their '
        "look. What is proved by its print is accepted in any case.</p>"
    )
    return _table("Suggested thresholds", names, rows) + why if rows else ""


def _failures(evaluation: Evaluation) -> str:
    return _table("Not asked", ("file", "why"), list((evaluation.failed or {}).items())) if evaluation.failed else ""


def _table(title: str, names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f'<h2>{title}</h2><div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
