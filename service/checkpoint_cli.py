"""`person-search checkpoint …`: a model upgrade from the command line, over the API of a running service."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from service.checkpoint_schemas import CheckpointResponse, GateReport
    from service.client import Client

Json = dict[str, Any]

checkpoint_app = typer.Typer(help="Trained networks, and which of them answers searches.", no_args_is_help=True)
console = Console()

Url = Annotated[str, typer.Option(help="Address of the running service.")]
Id = Annotated[str, typer.Argument(help="Id of a checkpoint, as `checkpoint list` prints it.")]
AllowMissing = Annotated[int, typer.Option(help="Images that may be lost to search.", min=0)]
Force = Annotated[bool, typer.Option("--force", help="Go on although it is refused; needs --reason.")]
Reason = Annotated[str | None, typer.Option(help="Why, to be remembered with it.")]
Queries = Annotated[
    Path | None, typer.Option(help='Labelled descriptions, a JSON object a line: {"text": …, "identity": …}.')
]
DEFAULT_URL = "http://127.0.0.1:8000"


@checkpoint_app.command("register")
def register(
    file: Annotated[Path, typer.Argument(help="The checkpoint's file, or what is shipped: `default`, `infrared`.")],
    url: Url = DEFAULT_URL,
) -> None:
    """Send a checkpoint to the service; the workers begin to embed the gallery with it, searches stay as they are."""
    from model.checkpoint import shipped

    file = shipped(file)
    if not file.is_file():
        _refuse(f"There is no checkpoint at {file}. Check the path.")
    with _client(url) as client, file.open("rb") as opened:
        registered = client.register_checkpoint(opened)
    console.print(f"{registered.id} is registered. {_progress(registered)}", highlight=False)


@checkpoint_app.command("list")
def list_all(url: Url = DEFAULT_URL) -> None:
    """All checkpoints, and how far their embeddings are."""
    with _client(url) as client:
        found = client.checkpoints()
    table = Table("id", "net", "state", "embedded", "failed", "remaining", "registered")
    for one in found:
        how_far = one.coverage
        done = f"{how_far.embedded} of {how_far.images}" if how_far else "-"
        failed = str(how_far.failed) if how_far else "-"
        table.add_row(one.id, one.net, one.state, done, failed, _remaining(one), f"{one.created_at:%Y-%m-%dT%H:%M}")
    console.print(table)


@checkpoint_app.command("status")
def status(id: Id, url: Url = DEFAULT_URL) -> None:
    """One checkpoint: how far it is, what the gate found last, what was done with it."""
    with _client(url) as client:
        found = client.checkpoint(id)
    console.print(f"{found.id} ({found.net}, {found.dim} dimensions) is {found.state}. {_progress(found)}")
    if found.gate is not None:
        print_report(found.gate)
    for event in found.events:
        why = f": {event.detail['reason']}" if event.detail.get("reason") else ""
        console.print(f"{event.at:%Y-%m-%dT%H:%M:%S}  {event.kind.replace('_', ' ')}{why}", highlight=False)


@checkpoint_app.command("gate")
def gate(id: Id, allow_missing: AllowMissing = 0, queries: Queries = None, url: Url = DEFAULT_URL) -> None:
    """Compare a candidate with the active checkpoint; nothing changes. Exit status 1 if it would be refused."""
    with _client(url) as client:
        report = client.judge_checkpoint(id, {"allow_missing": allow_missing, "labelled_texts": _labelled(queries)})
    print_report(report)
    raise typer.Exit(0 if report.passed else 1)


@checkpoint_app.command("activate")
def activate(
    id: Id,
    allow_missing: AllowMissing = 0,
    queries: Queries = None,
    force: Force = False,
    reason: Reason = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Have searches answered by a candidate, if the gate lets it pass."""
    body: Json = {"allow_missing": allow_missing, "labelled_texts": _labelled(queries), "force": force}
    with _client(url) as client:
        activated = client.activate_checkpoint(id, body | ({"reason": reason} if reason else {}))
    if activated.gate is not None:
        print_report(activated.gate)
    console.print(f"{id} is active; each replica answers with it once it is loaded.", highlight=False)


@checkpoint_app.command("rollback")
def rollback(
    allow_missing: AllowMissing = 0, force: Force = False, reason: Reason = None, url: Url = DEFAULT_URL
) -> None:
    """Have searches answered by the checkpoint before the active one."""
    body: Json = {"allow_missing": allow_missing, "force": force}
    with _client(url) as client:
        active = [one.id for one in client.checkpoints() if one.state == "active"]
        if not active:
            _refuse("No checkpoint is active, so there is nothing to take back.")
        previous = client.roll_back_checkpoint(active[0], body | ({"reason": reason} if reason else {}))
    console.print(f"{previous.id} is active again instead of {active[0]}.", highlight=False)


@checkpoint_app.command("retire")
def retire(id: Id, url: Url = DEFAULT_URL) -> None:
    """Remove the embeddings and the file of a checkpoint that is not the active one."""
    with _client(url) as client:
        client.retire_checkpoint(id)
    console.print(f"{id} is retired; its embeddings and its file are gone.", highlight=False)


def print_report(report: GateReport) -> None:
    """What the gate found: figures, then warnings, then reasons to refuse."""
    for kind, cosine in report.canaries.items():
        console.print(f"known {kind}: {cosine:.4f} like the stored vector", highlight=False)
    for kind, overlap in report.overlap.items():
        share = f"{overlap.mean:.0%} of the first ten stay (at least {overlap.lowest:.0%})"
        console.print(f"searches by {kind}: {share}, {overlap.queries} queries", highlight=False)
    for kind, rank1 in report.rank1.items():
        change = f"{rank1.active:.1%} -> {rank1.candidate:.1%}"
        console.print(f"Rank-1 by {kind}: {change}, {rank1.queries} queries", highlight=False)
    for image in report.missing_images[:20]:
        reason = image.error or "waits for a worker"
        console.print(f"missing {image.image_id}: {reason}", highlight=False, soft_wrap=True)
    for warning in report.warnings:
        console.print(f"[yellow]note:[/] {warning}", highlight=False, soft_wrap=True)
    for refusal in report.refusals:
        console.print(f"[red]refused:[/] {refusal}", highlight=False, soft_wrap=True)
    if report.passed:
        console.print("The gate lets it pass.")


def _client(url: str) -> Client:
    from service.client import Client  # here, so that --help is instant

    return Client(url)


def _refuse(sentence: str) -> NoReturn:
    from service.client import ServiceError

    raise ServiceError(sentence)


def _labelled(path: Path | None) -> list[dict[str, Any]]:
    if path is None:
        return []
    try:
        lines = path.read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        _refuse(f"{path} cannot be read as JSON lines with text and identity ({error}).")


def _progress(found: CheckpointResponse) -> str:
    how_far = found.coverage
    if how_far is None:
        return "Its embeddings are gone."
    failed = f", {how_far.failed} failed" if how_far.failed else ""
    done = f"{how_far.embedded} of {how_far.images} images are embedded{failed}"
    return f"{done}; remaining: {_remaining(found)}."


def _remaining(found: CheckpointResponse) -> str:
    how_far = found.coverage
    if how_far is None:
        return "-"
    if how_far.pending == 0:
        return "none"
    if how_far.seconds_left is None:
        return f"{how_far.pending} images, no worker is at it"
    left = timedelta(seconds=round(how_far.seconds_left))
    return f"{left} at {how_far.per_second:.1f} images/s"
