"""Commands of `person-search` for accounts: `user create | list | disable | enable | password`, `api-key create | list
| revoke`.

For whoever owns the machine: they speak to the database themselves and ask for no permission. So they also let somebody
in again when nobody can sign in any more.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from indexer.accounts import UserRecord
    from indexer.audit import Actor

user_app = typer.Typer(help="Who may sign in, directly in the database.", no_args_is_help=True)
key_app = typer.Typer(help="What machines show instead of a password, directly in the database.", no_args_is_help=True)
console = Console()


class RoleName(StrEnum):
    operator = "operator"
    investigator = "investigator"
    ingest = "ingest"
    auditor = "auditor"
    admin = "admin"


User = Annotated[str, typer.Argument(help="Name of the user.")]
Roles = Annotated[list[RoleName], typer.Option("--role", help="What they may do; repeat for several.")]
Cameras = Annotated[
    list[str] | None, typer.Option("--camera", help="Only images of this camera; repeat for several. Default: all.")
]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from the first line of stdin.")]


@user_app.command("create")
def create_user(name: User, role: Roles, camera: Cameras = None, password_stdin: FromStdin = False) -> None:
    """Add a user; asks for the password."""
    from service import access, credentials
    from service.access_schemas import UserRequest

    asked = _checked(UserRequest, name=name, roles=role, cameras=camera, password=_password(password_stdin))
    with _sentences():
        access.refuse_weak(asked.name, asked.password)
    hashed = credentials.hash_password(asked.password)
    with _accounts() as (session, actor):
        user = access.create_user(session, actor, asked.name, hashed, asked.roles, asked.cameras)
    console.print(f"{user.name} may sign in as {', '.join(user.roles)} of {_cameras(user.cameras)}.", highlight=False)


@user_app.command("list")
def list_users() -> None:
    """All users."""
    from indexer import accounts

    with _accounts() as (session, _):
        found = accounts.users(session)
    table = Table("name", "roles", "cameras", "created", "disabled")
    for user in found:
        table.add_row(
            user.name, ", ".join(user.roles), _cameras(user.cameras), _day(user.created_at), _day(user.disabled_at)
        )
    console.print(table)


@user_app.command("disable")
def disable_user(name: User) -> None:
    """Keep a user out: sessions end, and the API keys they made are revoked."""
    _change(name, disabled=True)
    console.print(f"{name} can no longer sign in.", highlight=False)


@user_app.command("enable")
def enable_user(name: User) -> None:
    """Let a disabled user in again. Their API keys stay revoked."""
    _change(name, disabled=False)
    console.print(f"{name} can sign in again.", highlight=False)


@user_app.command("password")
def set_password(name: User, password_stdin: FromStdin = False) -> None:
    """Give a user a new password; their sessions end."""
    from service import access, credentials
    from service.access_schemas import UserChange

    asked = _checked(UserChange, password=_password(password_stdin))
    with _sentences():
        access.refuse_weak(name, asked.password)
    _change(name, password_hash=credentials.hash_password(asked.password))
    console.print(f"{name} has a new password.", highlight=False)


@key_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    role: Roles,
    camera: Cameras = None,
    days: Annotated[int, typer.Option(help="How long it is good.", min=1)] = 90,
) -> None:
    """Make an API key and print it, this once: `person-search api-key create intake --role ingest > key.txt`."""
    from service import access, credentials
    from service.access_schemas import KeyRequest
    from service.settings import ServiceSettings

    expires_at = datetime.now(UTC) + timedelta(days=days)
    asked = _checked(KeyRequest, name=name, roles=role, cameras=camera, expires_at=expires_at.isoformat())
    with _sentences():
        access.refuse_bad_expiry(asked.expires_at, ServiceSettings())
    new = credentials.new_key()
    with _accounts() as (session, actor):
        access.create_key(session, actor, new, asked.name, asked.roles, asked.cameras, asked.expires_at)
    print(new.key)  # alone on stdout, so that it can go into a file


@key_app.command("list")
def list_keys() -> None:
    """All API keys, without their secrets."""
    from indexer import accounts

    with _accounts() as (session, _):
        found = accounts.keys(session)
    table = Table("id", "key", "name", "roles", "cameras", "expires", "revoked", "last used")
    for key in found:
        days = (_day(key.expires_at), _day(key.revoked_at), _day(key.last_used_at))
        table.add_row(
            str(key.id), f"psk_{key.lookup}_...", key.name, ", ".join(key.roles), _cameras(key.cameras), *days
        )
    console.print(table)


@key_app.command("revoke")
def revoke_key(id: Annotated[UUID, typer.Argument(help="Id of the key, as `api-key list` prints it.")]) -> None:
    """Refuse a key from now on."""
    from service import access

    with _accounts() as (session, actor):
        access.revoke_key(session, actor, id)
    console.print(f"{id} is revoked.", highlight=False)


@contextmanager
def _accounts() -> Iterator[tuple[Session, Actor]]:
    """A transaction, and who acts."""
    from indexer.audit import Actor
    from indexer.database import transaction
    from service.governance_cli import gallery

    with _sentences(), gallery() as (database, _, _), transaction(database.engine) as session:
        yield session, Actor("system", None, "command line")


@contextmanager
def _sentences() -> Iterator[None]:
    """What the service would refuse is one sentence here, too."""
    from service.client import ServiceError
    from service.errors import Refusal

    try:
        yield
    except Refusal as refusal:
        raise ServiceError(" ".join(error.detail for error in refusal.errors) or refusal.detail) from refusal


def _change(name: str, **changes: Any) -> UserRecord:
    from indexer import accounts
    from indexer.errors import NotFound
    from service import access

    with _accounts() as (session, actor):
        found = accounts.user_by_name(session, name)
        if found is None:
            raise NotFound(f"There is no user {name!r}. `person-search user list` prints them all.")
        return access.change_user(session, actor, found[0].id, changes)


def _checked(model: Any, **given: Any) -> Any:
    """The same rules as over the API, in the same words."""
    from service.routes.bodies import parse

    with _sentences():
        return parse(model, json.dumps(given))


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    answer: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return answer


def _cameras(cameras: tuple[str, ...] | None) -> str:
    return "all cameras" if cameras is None else ", ".join(cameras)


def _day(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M}"
