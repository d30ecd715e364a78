"""The `firstsight` command: `serve`, `keys`, `backup` and `restore` are here, all others in `app/commands/`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from app.api.auth import DEFAULT_COLLECTION, Scope, create_key, read_keys, revoke_key
from app.commands import classes, evaluate, folder, here, pictures, watch
from app.errors import BackupRefused, IncompatibleStore, InvalidSettings, StoreUnavailable
from app.logs import configure_logs
from app.settings import read_settings

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Show it a new brand or product once; from the next request on it is recognised in other pictures.",
)
keys = typer.Typer(no_args_is_help=True, help="API keys.")

KeyFileOption = Annotated[Path, typer.Option("--file", envvar="FIRSTSIGHT_API_KEYS_FILE", help="JSON; made if need be.")]

CollectionOption = Annotated[str, typer.Option(help="Which collection.")]

# What the BLAS under numpy and FAISS, and OpenMP, read when they are loaded; which BLAS it is depends on the build.
THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# ONNX Runtime would keep an id of the machine and a database under ~/.cache, and send what it counts to its makers.
NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}


@app.command()
def serve() -> None:
    """Run the service, with settings from FIRSTSIGHT_* variables (README.md, "Settings")."""
    # As many pictures at once as cores, a thread each: more threads within one would be in the way of the others. The libraries
    # can be told so before they are loaded and not after; hence the imports behind it.
    os.environ.update(dict.fromkeys(THREAD_LIMITS, "1") | NO_TELEMETRY)
    from app.main import create_app
    from app.server import Server

    with faults_told():
        settings = read_settings()
        configure_logs(level=settings.log_level, log_format=settings.log_format)
        server = Server(
            lambda give_up: create_app(settings, on_failed_start=give_up),
            host=settings.host,
            port=settings.port,
            shutdown_timeout_s=settings.shutdown_timeout_s,
            trusted_proxies=settings.trusted_proxies,
        )
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, _exit)  # uvicorn raises it again when all requests are answered, and that is a good end
    server.run()
    if server.failed:
        raise typer.Exit(1)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Made; a SQLite store, whatever FIRSTSIGHT_STORE is.")],
    collection: CollectionOption = DEFAULT_COLLECTION,
) -> None:
    """Copy a collection of FIRSTSIGHT_STORE to a file. The service may run meanwhile."""
    from app.backup import back_up

    with faults_told():
        back_up(read_settings().store, collection, file)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A backup.")],
    collection: CollectionOption = DEFAULT_COLLECTION,
    replace: Annotated[bool, typer.Option("--replace", help="Remove the classes that are there.")] = False,
) -> None:
    """Make a collection of FIRSTSIGHT_STORE what it was in a backup. A service on SQLite has to be stopped for it."""
    from app.backup import restore

    with faults_told():
        restore(file, read_settings().store, collection, replace=replace)


app.command()(pictures.enrol)
app.command("enrol-folder")(folder.enrol_folder)
app.command()(pictures.classify)
app.command()(pictures.detect)
app.command()(watch.watch)
app.command()(evaluate.evaluate)
app.add_typer(classes.app, name="classes")
app.add_typer(keys, name="keys")
app.add_typer(here.config, name="config")
app.add_typer(here.models, name="models")


@keys.command("create")
def print_new_key(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="A name to know the key by, such as shop-app.")],
    scope: Annotated[str, typer.Option(help="read, enrol (and read) or admin (everything).")] = "read",
    collection: Annotated[str, typer.Option(help="The classes that it sees: those of one collection.")] = DEFAULT_COLLECTION,
    rate: Annotated[str | None, typer.Option(help="How often it may call, such as 50/second.")] = None,
    file: KeyFileOption = Path("keys.json"),
) -> None:
    """Add an API key to the key file, and print it: this once, only its hash is kept."""
    with faults_told():
        if scope.upper() not in Scope.__members__:
            raise InvalidSettings([f"--scope is read, enrol or admin, not {scope!r}"])
        typer.echo(create_key(file, key_id=key_id, scope=Scope[scope.upper()], collection=collection, rate=rate))


@keys.command("revoke")
def drop_key(key_id: Annotated[str, typer.Argument(metavar="ID")], file: KeyFileOption = Path("keys.json")) -> None:
    """Remove an API key from the key file. Running services refuse it within a second."""
    with faults_told():
        revoke_key(file, key_id=key_id)


@keys.command("list")
def print_keys(file: KeyFileOption = Path("keys.json")) -> None:
    """Print who has keys: id, scope, collection, rate."""
    with faults_told():
        for key in read_keys(file):
            typer.echo(f"{key.id}\t{key.scope.name.lower()}\t{key.collection}\t{key.rate or '-'}")


@contextmanager
def faults_told() -> Iterator[None]:
    """What can be put right with a sentence is told in one, without a traceback."""
    try:
        yield
    except (InvalidSettings, BackupRefused, StoreUnavailable, IncompatibleStore) as error:
        typer.echo(error.detail, err=True)
        raise typer.Exit(1) from None


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)


if __name__ == "__main__":
    app()
