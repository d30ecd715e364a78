"""`firstsight classes …`: looking after what is enrolled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.client import DEFAULT_URL
from app.commands.calling import JsonOption, KeyOption, UrlOption, calling, err, escaped, out, write_json
from app.commands.completion import class_names
from app.commands.shown import class_table

app = typer.Typer(no_args_is_help=True, help="List, show, change and delete classes.")
Name = Annotated[str, typer.Argument(metavar="NAME", autocompletion=class_names, show_default=False)]


@app.command("list")
def list_classes(as_json: JsonOption = False, url: UrlOption = DEFAULT_URL, key: KeyOption = None) -> None:
    """All classes by name."""
    with calling(url, key) as firstsight:
        classes = list(firstsight.classes())
    if as_json:
        write_json([one.as_json() for one in classes])
    elif classes:
        out.print(class_table(classes))
    else:
        err.print("Nothing is enrolled. `firstsight enrol NAME FILES…` begins.")


@app.command("show")
def show_class(
    name: Name,
    save: Annotated[Path | None, typer.Option("--save", metavar="DIR", help="Write the stored pictures there.")] = None,
    as_json: JsonOption = False,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """One class and its examples, each with its similarity to the others."""
    with calling(url, key) as firstsight:
        one, examples = firstsight.read_class(name), list(firstsight.examples(name))
        if save is not None:
            save.mkdir(parents=True, exist_ok=True)
            for example in examples:
                (save / f"{example.id}.jpg").write_bytes(firstsight.example_image(name, example.id))
    if as_json:
        write_json({**one.as_json(), "examples": [example.as_json() for example in examples]})
        return
    out.print(class_table([one]))
    for example in examples:
        alike = "alone" if example.similarity is None else f"{example.similarity:.2f} to the others"
        out.print(f"  {example.id}  {alike}")


@app.command("rename")
def rename_class(
    name: Name,
    new_name: Annotated[str, typer.Argument(metavar="NEW", show_default=False)],
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """Give a class another name."""
    with calling(url, key) as firstsight:
        renamed = firstsight.change_class(name, name=new_name)
    out.print(f"[green]✓[/] {escaped(name)} is now {escaped(renamed.class_name)}.")


@app.command("threshold", context_settings={"ignore_unknown_options": True})  # a threshold may begin with a minus
def set_threshold(
    name: Name,
    threshold: Annotated[str, typer.Argument(metavar="VALUE", help="-1 to 1, or computed.", show_default=False)],
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """Set the similarity from which a picture is accepted, or return to the computed one."""
    with calling(url, key) as firstsight:
        changed = firstsight.change_class(name, threshold="computed" if threshold == "computed" else _number(threshold))
    now = "none" if changed.threshold is None else f"{changed.threshold:.3f}"
    out.print(f"[green]✓[/] The threshold of {escaped(name)} is {now}.")


@app.command("delete")
def delete_class(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """Delete a class with all its examples."""
    with calling(url, key) as firstsight:
        one = firstsight.read_class(name)
        if not yes:
            typer.confirm(f"Delete {name} with its {one.examples} examples?", abort=True, err=True)
        firstsight.remove_class(name, expected=one.version)  # what was confirmed, and not what came meanwhile
    out.print(f"[green]✓[/] {escaped(name)} is deleted.")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no threshold: a number from -1 to 1, or computed.") from None
