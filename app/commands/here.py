"""`config show` and `models …`: what a service that starts here would run with. No service is asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from app.commands.calling import Exit, JsonOption, err, escaped, out, write_json
from app.errors import FirstsightError
from app.settings import PREFIX, read_settings

if TYPE_CHECKING:
    from app.adapters.model_set import FileCheck

config = typer.Typer(no_args_is_help=True, help="The settings of a service that starts here.")
models = typer.Typer(no_args_is_help=True, help="The model set of a service that starts here.")
Folder = Annotated[Path, typer.Argument(metavar="[DIR]", envvar="FIRSTSIGHT_MODELS_DIR", help="Folder of the model set.")]


@config.command("show")
def show_config(as_json: JsonOption = False) -> None:
    """All settings, as the environment makes them."""
    try:
        settings = read_settings()
    except FirstsightError as error:
        err.print(escaped(str(error)))
        raise typer.Exit(Exit.REFUSED) from None
    values = settings.model_dump(mode="json")
    if as_json:
        write_json({f"{PREFIX}{name.upper()}": value for name, value in values.items()})
        return
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    for column in ("variable", "value", "from"):
        table.add_column(column, overflow="fold")
    for name, value in values.items():
        variable = f"{PREFIX}{name.upper()}"
        given = bool(os.environ.get(variable))
        table.add_row(variable, escaped(str(value)), "environment" if given else "default", style="" if given else "bright_black")
    out.print(table)


@models.command("list")
def list_models(folder: Folder = Path("models"), as_json: JsonOption = False) -> None:
    """The files of the model set."""
    _show(_checked(folder), as_json=as_json)


@models.command("verify")
def verify_models(folder: Folder = Path("models"), as_json: JsonOption = False) -> None:
    """Whether each file of the model set is the one that its manifest names; ends with 1 if not."""
    checks = _checked(folder)
    _show(checks, as_json=as_json)
    if wrong := [check.file for check in checks if not check.is_right]:
        err.print(f"[bold red]✗[/] Not as the manifest says: {', '.join(wrong)}. Fetch the model set again.")
        raise typer.Exit(Exit.REFUSED)
    err.print(f"[green]✓[/] {len(checks)} files, each as the manifest says.")


def _checked(folder: Path) -> list[FileCheck]:
    from app.adapters.model_set import check_files  # with numpy, which `serve` loads only when it has set its threads

    try:
        return check_files(folder)
    except FirstsightError as error:
        err.print(f"[bold red]✗[/] {escaped(str(error))} Name the folder of a model set, here or in FIRSTSIGHT_MODELS_DIR.")
        raise typer.Exit(Exit.REFUSED) from None


def _show(checks: list[FileCheck], *, as_json: bool) -> None:
    if as_json:
        write_json([{"use": one.use, "file": one.file, "bytes": one.size_bytes, "right": one.is_right} for one in checks])
        return
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    for column in ("use", "file", "MB", ""):
        table.add_column(column, justify="right" if column == "MB" else "left")
    for one in checks:
        size = "–" if one.size_bytes is None else f"{one.size_bytes / 1e6:.1f}"
        table.add_row(one.use, one.file, size, "[green]✓[/]" if one.is_right else "[red]✗ not the file of the manifest[/]")
    out.print(table)
