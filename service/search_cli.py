"""`person-search search`: a search from the command line, over the API of a running service."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from service.search_schemas import SearchResponse

console = Console()
Json = dict[str, Any]


class GroupBy(StrEnum):
    track = "track"
    camera = "camera"
    identity = "identity"


class OrderBy(StrEnum):
    similarity = "similarity"
    earliest = "earliest"
    latest = "latest"


GROUPS = {GroupBy.track: "track_id", GroupBy.camera: "camera_id", GroupBy.identity: "identity"}
ORDERS = {OrderBy.similarity: "similarity", OrderBy.earliest: "captured_at", OrderBy.latest: "-captured_at"}


def search(
    text: Annotated[str | None, typer.Argument(help="The description.")] = None,
    image: Annotated[Path | None, typer.Option(help="An image to search by, alone or beside the text.")] = None,
    image_id: Annotated[str | None, typer.Option(help="An image of the gallery to search by.")] = None,
    crop: Annotated[
        str | None, typer.Option(help="Only this part of the image: LEFT,TOP,WIDTH,HEIGHT in pixels.")
    ] = None,
    text_weight: Annotated[float, typer.Option(help="Weight of the text beside an image.", min=0, max=1)] = 0.5,
    without: Annotated[str | None, typer.Option("--not", help="What the person does not look like.")] = None,
    like: Annotated[list[str] | None, typer.Option(help="Id of an image of the person; repeat for several.")] = None,
    unlike: Annotated[list[str] | None, typer.Option(help="Id of an image of somebody else.")] = None,
    camera: Annotated[list[str] | None, typer.Option(help="Only this camera; repeat for several.")] = None,
    site: Annotated[list[str] | None, typer.Option(help="Only cameras of this site; repeat for several.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only images with this tag; repeat for several.")] = None,
    since: Annotated[str | None, typer.Option(help="Only images from this time on, as 2026-09-01T18:00:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="Only images before this time.")] = None,
    between: Annotated[str | None, typer.Option(help="Only this time of day, as 20:00-06:00.")] = None,
    zone: Annotated[str, typer.Option(help="The zone of --between, as Europe/Berlin.")] = "UTC",
    filter: Annotated[str | None, typer.Option(help="Any other filter, in the JSON of the API.")] = None,
    group_by: Annotated[GroupBy | None, typer.Option(help="One result a track, camera or identity.")] = None,
    order_by: Annotated[OrderBy, typer.Option(help="By time: the --depth most similar ones.")] = OrderBy.similarity,
    depth: Annotated[int | None, typer.Option(help="How many of the most similar images to order by time.")] = None,
    limit: Annotated[int, typer.Option(help="How many results.")] = 10,
    case: Annotated[str | None, typer.Option(help="Id of the case this is for.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why you search; kept in the audit.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the service's whole answer.")] = False,
    url: Annotated[str, typer.Option(help="Address of the running service.")] = "http://127.0.0.1:8000",
) -> None:
    """Search a running service by description, by image, by examples, or by all of them."""
    from service.client import Client, ServiceError

    if text is None and image is None and image_id is None and not like:
        raise ServiceError(
            'Give a description, or an image with --image: person-search search "a woman in a red jacket".'
        )
    if image is not None and not image.is_file():
        raise ServiceError(f"There is no image file at {image}.")
    shown = {"image_id": image_id, "crop": None if crop is None else _box(crop)}
    query: Json = _given(
        text=text,
        image=_given(**shown) or None,
        negative_text=without,
        positive_image_ids=like or None,
        negative_image_ids=unlike or None,
    )
    if text is not None and (image is not None or image_id is not None):
        query["weights"] = {"text": text_weight, "image": 1 - text_weight}
    wanted = _given(
        camera_id={"in": camera} if camera else None,
        site={"in": site} if site else None,
        tags={"all": tag} if tag else None,
        captured_at=_given(gte=since, lt=until) or None,
        time_of_day=None if between is None else _span(between, zone),
    )
    body = _given(
        query=query,
        filter={**_parsed(filter), **wanted},
        limit=limit,
        group_by=None if group_by is None else GROUPS[group_by],
        order_by=None if order_by is OrderBy.similarity else ORDERS[order_by],
        depth=depth,
        purpose=_given(case_id=case, reason=reason) or None,
    )
    with Client(url) as client:
        answer = client.search(body, image)
    if as_json:
        console.print_json(answer.model_dump_json())
    else:
        print_ranking(answer, console)


def _given(**values: Any) -> Json:
    return {name: value for name, value in values.items() if value is not None}


def _box(crop: str) -> Json:
    from service.client import ServiceError

    try:
        left, top, width, height = (int(part) for part in crop.split(","))
    except ValueError as error:
        raise ServiceError(f"--crop wants LEFT,TOP,WIDTH,HEIGHT in pixels, as 10,0,64,160, not {crop!r}.") from error
    return {"left": left, "top": top, "width": width, "height": height}


def _span(between: str, zone: str) -> Json:
    from service.client import ServiceError

    gte, dash, lt = between.partition("-")
    if not dash:
        raise ServiceError(f"--between wants two times of day, as 20:00-06:00, not {between!r}.")
    return {"gte": gte.strip(), "lt": lt.strip(), "tz": zone}


def _parsed(filter: str | None) -> Json:
    from service.client import ServiceError

    try:
        parsed = {} if filter is None else json.loads(filter)
    except ValueError as error:
        raise ServiceError(f"--filter is not JSON: {error}.") from error
    if not isinstance(parsed, dict):
        raise ServiceError('--filter wants a JSON object, as {"identity": {"exists": true}}.')
    return parsed


def print_ranking(answer: SearchResponse, console: Console) -> None:
    """The ranking as a table, the warnings below it. Image ids where the terminal is wide enough for them."""
    wide = console.width >= 110
    grouped = any(result.group for result in answer.results)
    columns = ["rank", "similarity", "camera", "captured at", "external id"]
    table = Table(*columns, *(["images"] if grouped else []), *(["image id"] if wide else []))
    for result in answer.results:
        image, moment = result.image, result.image.captured_at
        row = [
            str(result.rank),
            f"{result.similarity:.3f}",
            image.camera_id or "-",
            f"{moment:%Y-%m-%d %H:%M:%S %Z}" if moment else "-",
            image.external_id or "-",
        ]
        group = [str(result.group.size) if result.group else "-"] if grouped else []
        table.add_row(*row, *group, *([str(result.image_id)] if wide else []))
    console.print(table)
    for warning in answer.warnings:
        console.print(f"[yellow]note:[/] {warning}", highlight=False)
