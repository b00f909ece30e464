"""`person-search config …`: what is configured and where each value comes from, and whether it can work.

`python -m service.config_cli > docs/settings.md` writes the list of all settings, which a test keeps current.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from service.settings import ServiceSettings

config_app = typer.Typer(help="Settings of the service and the worker.", no_args_is_help=True)
console = Console()

PREFIX = "PERSON_SEARCH_"
HEADER = """\
# Settings

Written by `python -m service.config_cli`. Defaults, then environment variables of these names, then files of the same
names in `/run/secrets`, in lower case. Lists are written as JSON. [operations.md](operations.md) says when to change
what, `person-search config show` what is in force.

| variable | default | what it does |
|---|---|---|
"""


@config_app.command("show")
def show(as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False) -> None:
    """Print the settings in force, as environment variables, with their source and meaning; secrets are hidden."""
    import json

    from indexer.settings import refuse_unknown_variables
    from service.settings import ServiceSettings

    refuse_unknown_variables(ServiceSettings)
    settings = ServiceSettings()
    rows = [
        {"name": variable(name), "value": shown(value), "source": source(name), "description": describe(name)}
        for name, value in settings.model_dump(mode="json").items()
    ]
    if as_json:
        console.print_json(json.dumps(rows))
        return
    width = max(len(f"{row['name']}={row['value']}") for row in rows if len(row["value"]) < 30)
    for row in rows:
        line = f"{row['name']}={row['value']}".ljust(width) + f"  # {row['source']}: {row['description']}"
        console.print(line, highlight=False, soft_wrap=True, markup=False)


@config_app.command("check")
def check() -> None:
    """See whether the settings can work: values, folders, files, device, ports, database. Changes nothing."""
    from indexer.errors import GalleryError
    from indexer.settings import refuse_unknown_variables
    from model.errors import ModelError
    from service.settings import ServiceSettings

    refuse_unknown_variables(ServiceSettings)
    settings = ServiceSettings()
    console.print("[green]ok[/]    every variable is a setting, and every value possible")
    failed = False
    for name, test in CHECKS.items():
        try:
            found = test(settings)
        except (GalleryError, ModelError, OSError, ValueError) as error:
            failed = True
            console.print(f"[bold red]wrong[/] {name}: {error}", highlight=False, soft_wrap=True)
        else:
            console.print(f"[green]ok[/]    {name}: {found}", highlight=False, soft_wrap=True)
    raise typer.Exit(1 if failed else 0)


# ------------------------------------------------------------------------------------------------------------ settings


def variable(name: str) -> str:
    return PREFIX + name.upper()


def shown(value: Any) -> str:
    """A value as it is written in the environment."""
    import json

    match value:
        case None:
            return ""
        case bool() | list() | dict():
            return json.dumps(value)
    return str(value)


def source(name: str) -> str:
    """Where the value of a setting comes from; the first that has one wins."""
    from indexer.settings import SECRETS_DIR

    wanted = variable(name).lower()
    if SECRETS_DIR.is_dir() and any(path.name.lower() == wanted for path in SECRETS_DIR.iterdir()):
        return "secret file"
    if any(given.lower() == wanted for given in os.environ):
        return "environment"
    return "default"


def describe(name: str) -> str:
    from service.settings import ServiceSettings

    return ServiceSettings.model_fields[name].description or ""


# -------------------------------------------------------------------------------------------------------------- checks


def _data_folder(settings: ServiceSettings) -> str:
    from service.operations import refuse_when_full

    folder = existing_parent(settings.data_dir)
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        sentence = f"{folder} is no folder that can be written to."
        raise NotADirectoryError(f"{sentence} Choose another {PREFIX}DATA_DIR, or change its owner.")
    if folder == settings.data_dir:
        refuse_when_full(settings)
    return f"{settings.data_dir}, {shutil.disk_usage(folder).free // 2**20:,} MiB free"


def _database(settings: ServiceSettings) -> str:
    from indexer.database import connect, database_errors, normal_url
    from indexer.postgres import find_binaries

    if settings.database_url is None:
        return f"embedded in {settings.data_dir / 'postgres'}, started from {find_binaries(settings.postgres_bin)}"
    engine = connect(normal_url(settings.database_url.get_secret_value()))
    try:
        with database_errors(), engine.connect() as connection:
            version = ".".join(map(str, connection.dialect.server_version_info or ()))
    finally:
        engine.dispose()
    return f"PostgreSQL {version} answers"


def _checkpoint(settings: ServiceSettings) -> str:
    from model.checkpoint import describe
    from service.encoders import checkpoint_path

    path = checkpoint_path(settings)
    return f"{describe(path)['id']} in {path}"


def _device(settings: ServiceSettings) -> str:
    from model.encoder import pick_device

    return str(pick_device(settings.device))


def _intake_roots(settings: ServiceSettings) -> str:
    for root in settings.intake_roots:
        if "://" not in root and not Path(root).is_dir():
            raise NotADirectoryError(f"{root} is no folder. Correct {PREFIX}INTAKE_ROOTS.")
    return f"{len(settings.intake_roots)}"


CHECKS: dict[str, Callable[[ServiceSettings], str]] = {
    "data folder": _data_folder,
    "database": _database,
    "checkpoint": _checkpoint,
    "device": _device,
    "intake roots": _intake_roots,
}


def existing_parent(folder: Path) -> Path:
    """The folder, or what of its path there is already."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


# ------------------------------------------------------------------------------------------------------- documentation


def documented() -> Iterator[str]:
    """A row for every setting: name, default, what it does."""
    from service.settings import ServiceSettings

    for name, field in ServiceSettings.model_fields.items():
        default = shown(list(field.default) if isinstance(field.default, tuple) else field.default)
        yield f"| `{variable(name)}` | {f'`{default}`' if default else 'none'} | {field.description} |"


if __name__ == "__main__":
    print(HEADER + "\n".join(documented()))
