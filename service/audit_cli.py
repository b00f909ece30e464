"""Commands of `person-search` for auditors: `audit verify | export`. They read the database themselves, or a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from indexer.audit_verify import Verification

audit_app = typer.Typer(help="Who did what: check the account, or take it away.", no_args_is_help=True)
console = Console()


@audit_app.command("verify")
def verify(
    file: Annotated[
        Path | None, typer.Option(help="An export, or the audit-extract.jsonl of a case, instead of the database.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Read every row and hold it against the one before. Exit status 1 and the first wrong row, if there is one."""
    from indexer import audit_verify

    if file is not None:
        if not file.is_file():
            raise typer.BadParameter(f"There is no file {file}.")
        found = audit_verify.verify_file(file)
    else:
        found = verify_database()
    if as_json:
        fault = None if found.fault is None else vars(found.fault)
        console.print_json(json.dumps({**vars(found), "head": vars(found.head), "fault": fault}))
    elif found.fault is None:
        console.print(f"The audit is whole: {found.rows} rows.", highlight=False)
        console.print(f"Row {found.head.seq} has the hash {found.head.hash}.", highlight=False, soft_wrap=True)
        if file is None:
            console.print(f"It agrees with {found.anchors} earlier heads written down beside it.", highlight=False)
        if found.reasons_erased:
            console.print(f"{found.reasons_erased} reasons were erased with the people they named.", highlight=False)
    else:
        console.print(
            f"[bold red]row {found.fault.seq}: {found.fault.kind}.[/] {found.fault.detail}",
            highlight=False,
            soft_wrap=True,
        )
    raise typer.Exit(0 if found.fault is None else 1)


def verify_database() -> Verification:
    from indexer import audit_anchors, audit_verify
    from service.governance_cli import gallery

    with gallery() as (database, _, journal):
        anchors = journal.with_name(audit_anchors.NAME)
        found = audit_verify.verify(database, anchors)
        if found.fault is None:
            audit_anchors.drop(database, anchors)
    return found


@audit_app.command("export")
def export(
    out: Annotated[Path | None, typer.Argument(help="File to write; left out: the standard output.")] = None,
) -> None:
    """Write all of the audit as JSON lines, which `audit verify --file` checks without a database."""
    from indexer import audit, audit_verify
    from indexer.database import transaction
    from service.governance_cli import gallery

    with gallery() as (database, _, _):
        with transaction(database.engine) as session:
            audit.record(session, audit.SYSTEM, "audit.export")
        if out is None:
            sys.stdout.writelines(audit_verify.export(database))
            return
        with out.open("w", encoding="utf-8") as file:
            file.writelines(audit_verify.export(database))
    console.print(f"Wrote {out}. Keep it where nobody who runs this system can write.", highlight=False)
