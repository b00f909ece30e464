"""Commands of `person-search` for what must go and what must stay: `erase`, and `backup create | verify | restore`.

`erase` speaks to a running service, as searches do; backups speak to the database and the image store themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from indexer.database import Database
    from indexer.images import ImageStore

backup_app = typer.Typer(help="Copies of database and images, to be kept elsewhere.", no_args_is_help=True)
console = Console()

Folder = Annotated[Path, typer.Argument(help="Folder of the backup.")]


def erase(
    reason: Annotated[str, typer.Option(help="Why; kept in the receipt, so it must not name the person.")],
    image_id: Annotated[list[str] | None, typer.Option(help="An image; repeat for several.")] = None,
    external_id: Annotated[list[str] | None, typer.Option(help="An external id; repeat for several.")] = None,
    identity: Annotated[str | None, typer.Option(help="Everything of one identity.")] = None,
    filter: Annotated[str | None, typer.Option(help="A filter as in searches, in JSON.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Annotated[str, typer.Option(help="Address of the running service.")] = "http://127.0.0.1:8000",
) -> None:
    """Erase people for good: images, files, embeddings, rankings, names. Prints the receipt."""
    from indexer.errors import InvalidFilter
    from service.client import Client

    try:
        conditions = None if filter is None else json.loads(filter)
    except ValueError as error:
        raise InvalidFilter(f"--filter is not JSON: {error}.") from error
    given = {"image_ids": image_id, "external_ids": external_id, "identity": identity, "filter": conditions}
    body: dict[str, Any] = {name: value for name, value in given.items() if value is not None} | {"reason": reason}
    with Client(url) as client:
        if dry_run or not yes:
            counted = client.erase(body | {"dry_run": True}).counts
            console.print_json(counted.model_dump_json())
            if dry_run:
                return
            typer.confirm(f"Erase {counted.images} images for good?", abort=True)
        receipt = client.erase(body)
    console.print_json(receipt.model_dump_json())
    if receipt.state != "done":
        raise typer.Exit(1)


@backup_app.command("create")
def create(folder: Folder) -> None:
    """Write a backup into a new folder. The service may go on meanwhile."""
    from indexer import backup, checkpoints

    with gallery() as (database, store, journal):
        made = backup.create(database, store, journal, folder, journal.parent / checkpoints.FOLDER)
    console.print(f"Wrote {made.rows} rows and {made.files} files ({made.file_bytes:,} bytes) to {folder}.")
    if made.missing:
        console.print(f"[yellow]note:[/] {made.missing} files are missing from the image store, so from the backup.")


@backup_app.command("verify")
def verify(folder: Folder) -> None:
    """Read all of a backup and compare it with its checksums."""
    from indexer import backup

    found = backup.verify(folder)
    console.print(f"The backup of {found.created_at} is whole: {found.rows} rows, {found.files} files.")


@backup_app.command("restore")
def restore(
    folder: Folder,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a gallery that is not empty.")] = False,
) -> None:
    """Put a backup in the place of the gallery, without whom was erased since. Stop service and workers before."""
    from indexer import backup, checkpoints, snapshots

    with gallery() as (database, store, journal):
        beside = {"snapshots": journal.parent / snapshots.FOLDER, "checkpoints": journal.parent / checkpoints.FOLDER}
        left_out = backup.restore(database, store, journal, folder, replace=replace, **beside)
    console.print(f"Restored {folder}. {left_out} images were left out, because they were erased since.")


@contextmanager
def gallery() -> Iterator[tuple[Database, ImageStore, Path]]:
    """The database, the image store and the erasure journal of the settings."""
    from indexer import journal
    from indexer.database import open_database
    from indexer.images import ImageStore
    from indexer.settings import refuse_unknown_variables
    from service.settings import ServiceSettings

    refuse_unknown_variables(ServiceSettings)
    settings = ServiceSettings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with open_database(settings) as database:
        yield database, ImageStore(settings.data_dir / "images"), settings.data_dir / journal.NAME
