"""`person-search`: every job from the command line, one function a command.

Commands that search or add images speak to a running service over its API (service/client); `serve` and
`worker` are the two long-running processes; `train`, `evaluate` and `synth` need no service. Heavy imports stay
inside the commands, so that `--help` is instant.
"""

from __future__ import annotations

import csv
import json
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from service.access_cli import key_app, user_app
from service.audit_cli import audit_app
from service.checkpoint_cli import checkpoint_app
from service.config_cli import config_app
from service.governance_cli import backup_app, erase
from service.search_cli import search

app = typer.Typer(
    name="person-search",
    help="Find a person in camera images from a description, a photo, or both.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(config_app, name="config")
app.add_typer(checkpoint_app, name="checkpoint")
app.command()(search)
app.command()(erase)
app.add_typer(backup_app, name="backup")
app.add_typer(user_app, name="user")
app.add_typer(key_app, name="api-key")
app.add_typer(audit_app, name="audit")

if TYPE_CHECKING:
    from service.schemas import IngestionItem

NOT_ADDED: tuple[Literal["rejected", "failed"], ...] = ("rejected", "failed")

console = Console()
errors = Console(stderr=True)


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"


class Preset(StrEnum):
    tiny = "tiny"


Url = Annotated[str, typer.Option(help="Address of the running service.")]
DEFAULT_URL = "http://127.0.0.1:8000"
PREFIX = "PERSON_SEARCH_"


def main() -> None:
    """Run the command line; an error meant for the user is one sentence on stderr and exit status 1."""
    try:
        app()
    except Exception as error:
        from pydantic import ValidationError

        from indexer.errors import GalleryError
        from model.errors import ModelError
        from service.client import ServiceError

        if isinstance(error, ValidationError):
            _fail(" ".join(_sentence(e["loc"], e["msg"]) for e in error.errors()))
        if isinstance(error, GalleryError | ModelError | ServiceError):
            _fail(str(error))
        raise


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    return f"{PREFIX}{'_'.join(map(str, location)).upper()}: {message}." if location else message


def _fail(sentence: str) -> NoReturn:
    errors.print(f"[bold red]error:[/] {sentence}", highlight=False, soft_wrap=True)
    raise SystemExit(1)


@app.callback()
def common(
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File with the API key to show to the service; else PERSON_SEARCH_API_KEY is, if it is set."),
    ] = None,
) -> None:
    """Find a person in camera images from a description, a photo, or both."""
    if api_key_file is not None:
        try:
            os.environ[f"{PREFIX}API_KEY"] = api_key_file.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            _fail(f"The API key cannot be read from {api_key_file} ({type(error).__name__}). Check the path.")


# -- running the system ----------------------------------------------------------------------------------------------


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Print the ranking of the example query and exit.")] = False,
    port: Annotated[int, typer.Option(help="Port on loopback; 0 picks a free one.", min=0, max=65535)] = 8000,
    data: Annotated[Path, typer.Option(help="Where the demo keeps its database and images.")] = Path(
        "person-search-data/demo"
    ),
) -> None:
    """Start everything on loopback, add the shipped gallery, search it, and serve the page."""
    from service.demo import run_demo

    run_demo(data, port, once, console)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", min=0, max=65535)] = None,
) -> None:
    """Serve the API and the page."""
    from indexer.settings import refuse_unknown_variables
    from service import serving
    from service.settings import ServiceSettings

    refuse_unknown_variables(ServiceSettings)
    overrides: dict[str, Any] = {k: v for k, v in {"host": host, "port": port}.items() if v is not None}
    serving.serve(ServiceSettings(**overrides))


@app.command()
def worker() -> None:
    """Embed images that lack an embedding, until stopped. Start as many as the machine can feed.

    Serves every checkpoint the gallery wants. With PERSON_SEARCH_CHECKPOINT it starts with that one, or not at all if
    the gallery does not want it.
    """
    from indexer.settings import refuse_unknown_variables
    from service import serving
    from service.settings import ServiceSettings

    refuse_unknown_variables(ServiceSettings)
    serving.work(ServiceSettings())


@app.command()
def migrate() -> None:
    """Bring the database to the schema of this version, and end. `serve` and `worker` do the same when they start."""
    from indexer.database import open_database, revision_of, transaction
    from indexer.settings import refuse_unknown_variables
    from service.settings import ServiceSettings

    refuse_unknown_variables(ServiceSettings)
    with open_database(ServiceSettings()) as database, transaction(database.engine) as session:
        console.print(f"The database has schema {revision_of(session)}, which is this version's.", highlight=False)


# -- using it --------------------------------------------------------------------------------------------------------


@app.command()
def ingest(
    source: Annotated[
        str,
        typer.Argument(
            help="A zip or tar with metadata.jsonl, a folder with or without one, a manifest (.jsonl) with its files, "
            "or the URL of a manifest the service reads by itself, as file:///srv/deliveries/metadata.jsonl."
        ),
    ],
    url: Url = DEFAULT_URL,
    register_cameras: Annotated[
        bool, typer.Option("--register-cameras", help="Create cameras that are not known yet.")
    ] = False,
    camera: Annotated[str | None, typer.Option(help="Camera of all images of a folder without metadata.jsonl.")] = None,
    rejected: Annotated[Path | None, typer.Option(help="Write the rejected rows to this CSV file.")] = None,
) -> None:
    """Add images in bulk and wait until they are searchable. Lines that name no file change images already there."""
    from service.client import Client
    from service.upload import follow_with_progress, open_upload

    with Client(url) as client:
        if "://" in source:
            ingestion = client.ingest_reference(source, register_cameras)
        else:
            with open_upload(Path(source), camera) as upload:
                ingestion = client.ingest(upload.chunks, upload.media_type, register_cameras)
        state = follow_with_progress(client, ingestion.id, console)
        bad = [row for kind in NOT_ADDED for row in client.items(ingestion.id, kind)]
    _report(bad, rejected)
    if state.error:
        _fail(state.error)
    raise typer.Exit(1 if bad else 0)


def _report(bad: list[IngestionItem], rejected: Path | None) -> None:
    """The rows that were not added: all of them to a CSV file, or the first ones as a table."""
    if rejected is not None:
        with rejected.open("w", newline="") as out:
            writer = csv.DictWriter(
                out, ["position", "external_id", "file", "state", "code", "reason"], extrasaction="ignore"
            )
            writer.writeheader()
            writer.writerows(row.model_dump() for row in bad)
    elif bad:
        table = Table("line", "file", "reason", title="Not added", title_justify="left")
        for row in bad[:20]:
            table.add_row(str(row.position), row.file or "", row.reason or "")
        console.print(table)
        if len(bad) > 20:
            console.print(f"... and {len(bad) - 20} more; --rejected FILE writes them all to a CSV file.")


# -- networks --------------------------------------------------------------------------------------------------------


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe; `train list` prints recipes and variants.")],
    root: Annotated[
        Path, typer.Option(help="Folder with imgs/ and reid_raw.json (or the dataset's own list of captions).")
    ] = Path("data/train"),
    out: Annotated[Path, typer.Option(help="Folder of this run: log, state, best checkpoint.")] = Path("runs/latest"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on exactly where the run in --out stopped.")] = False,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    threads: Annotated[int | None, typer.Option(help="CPU threads of torch.", min=1)] = None,
    precision: Annotated[Precision | None, typer.Option(help="bf16 is faster where the CPU has it.")] = None,
    init: Annotated[Path | None, typer.Option(help="A checkpoint to start from.")] = None,
    limit_ids: Annotated[int | None, typer.Option(help="Use only so many training identities.", min=2)] = None,
    preset: Annotated[Preset | None, typer.Option(help="The same recipe in small: it runs within minutes.")] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help="A row of the paper's tables, as align-none; repeat to put rows together.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change one setting of the recipe, as stages.0.epochs=3.")
    ] = None,
) -> None:
    """Train a network from a recipe."""
    from model import distributed, variants
    from model.recipes import PRESETS, RECIPES, override
    from model.train import train as run_training

    if recipe == "list":
        print_recipes(console)
        return
    if recipe not in RECIPES:
        _fail(f"There is no recipe {recipe!r}; choose one of {', '.join(RECIPES)}.")
    changes: dict[str, Any] = {}
    for item in settings or []:
        key, equals, value = item.partition("=")
        if not equals:
            _fail(f"--set wants NAME=VALUE, not {item!r}.")
        try:
            changes[key] = json.loads(value)
        except json.JSONDecodeError:
            changes[key] = value
    try:
        chosen = RECIPES[recipe]()
        chosen = PRESETS[preset](chosen) if preset is not None else chosen
        chosen = override(variants.apply(chosen, variant or []), **changes)
    except ValueError as error:
        _fail(str(error))
    best = run_training(
        chosen,
        root,
        out,
        resume=resume,
        device=device.value,
        threads=threads,
        precision=precision.value if precision else None,
        init=init,
        limit_ids=limit_ids,
    )
    if distributed.rank() == 0:
        console.print(f"Best checkpoint: {best}")
    distributed.leave()


def print_recipes(console: Console) -> None:
    """Recipes with the first line of what they say of themselves; variants with what the paper prints for them."""
    from model.recipes import RECIPES
    from model.variants import VARIANTS

    for name, function in RECIPES.items():
        console.print(f"[bold]{name}[/]  {(function.__doc__ or '').splitlines()[0]}")
    table = Table("--variant", "what changes", title="\nRows of the paper, Rank-1 on CUHK-PEDES")
    table.add_column("paper", justify="right")
    section = ""
    for name, variant in VARIANTS.items():
        if variant.table != section:
            section = variant.table
            table.add_section()
            table.add_row("", f"[bold]{section}[/]", "")
        table.add_row(name, variant.what, "-" if variant.rank1 is None else f"{variant.rank1:.2f}")
    console.print(table)


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A file, or what is shipped: `default`, `infrared`.")],
    dataset: Annotated[
        str,
        typer.Option(
            help="Format of the data: cuhk-pedes, icfg-pedes, rstpreid or synth; of people in visible and infrared "
            "light sysu-mm01, regdb or synth-infrared."
        ),
    ] = "cuhk-pedes",
    root: Annotated[
        Path, typer.Option(help="Folder with imgs/ and reid_raw.json (or the dataset's own list of captions).")
    ] = Path("data/test"),
    split: Annotated[str, typer.Option(help="train, val or test; of regdb also test_1 to test_10.")] = "test",
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    as_json: Annotated[Path | None, typer.Option("--json", help="Also write the result to this file.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Draw queries with their first ten results to this PNG.")] = None,
    sheet_queries: Annotated[int, typer.Option(help="How many queries to draw.", min=1)] = 12,
    query_list: Annotated[
        Path | None, typer.Option("--list", help="A cross-view list of queries and gallery, of images below --root.")
    ] = None,
    shifts: Annotated[
        int, typer.Option(help="Average each text over so many circular shifts of its words; 0 reads it once.", min=0)
    ] = 0,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Add MSER re-ranking to the protocols between visible and infrared.")
    ] = False,
    cameras: Annotated[str, typer.Option(help="Only images from these cameras, as 3,7; all where none is named.")] = "",
    away: Annotated[
        Path | None, typer.Option(help="A second folder, of other cameras or style: how much is found there too?")
    ] = None,
    away_cameras: Annotated[str, typer.Option(help="As --cameras, for --away.")] = "",
) -> None:
    """Measure a checkpoint on labelled images: a benchmark, or any folder in the CUHK-PEDES format."""
    from model import generalisation
    from model.checkpoint import shipped
    from model.evaluate import evaluate as run_evaluation
    from model.evaluate import report

    path = shipped(checkpoint)
    here, there = ([name.strip() for name in names.split(",") if name.strip()] for names in (cameras, away_cameras))
    if away is not None:
        if sheet is not None or query_list is not None or shifts or rerank:
            _fail("--away compares two sets; leave out --sheet, --list, --shifts and --rerank.")
        both = generalisation.generalisation(
            path,
            dataset,
            root,
            away,
            split=split,
            home_cameras=here,
            away_cameras=there,
            device=device.value,
            json_out=as_json,
        )
        generalisation.report(both, console)
        return
    result = run_evaluation(
        path,
        dataset,
        root,
        split=split,
        device=device.value,
        json_out=as_json,
        sheet=sheet,
        sheet_queries=sheet_queries,
        query_list=query_list,
        shifts=shifts,
        rerank=rerank,
        cameras=here,
    )
    report(result, console)


@app.command()
def explain(
    image: Annotated[Path, typer.Argument(help="An image of one person, cut out as a search finds it.")],
    text: Annotated[str, typer.Argument(help="The description.")],
    out: Annotated[Path, typer.Option(help="Draw the explanation to this PNG.")] = Path("why.png"),
    checkpoint: Annotated[str, typer.Option(help="A checkpoint file, or `default` for the shipped one.")] = "default",
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Draw which words of a description meet which strip of a body."""
    from PIL import Image, ImageOps

    from model.checkpoint import shipped
    from model.encoder import Encoder
    from model.explain import draw
    from model.explain import explain as run_explanation
    from model.sheets import save_png

    if not image.is_file():
        _fail(f"There is no image file at {image}.")
    try:
        with Image.open(image) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        _fail(f"{image} cannot be read as an image ({error}). Use a whole JPEG or PNG file.")
    path = shipped(checkpoint)
    result = run_explanation(Encoder(path, device.value), picture, text)
    save_png(draw(picture, result), out)
    best = [result.best_strip(phrase) for phrase in result.phrases]
    if as_json:
        described = {
            "similarity": result.similarity,
            "strip_bounds": result.strip_bounds,
            "phrases": [
                {"phrase": phrase, "best_strip": strip, "strips": row.tolist()}
                for phrase, strip, row in zip(result.phrases, best, result.strips, strict=True)
            ],
        }
        console.print_json(json.dumps(described))
        return
    table = Table("phrase", f"strip, of {len(result.strip_bounds)} from the top")
    for phrase, strip in zip(result.phrases, best, strict=True):
        table.add_row(phrase, str(strip + 1))
    console.print(table)
    console.print(f"Similarity {result.similarity:.3f}. Wrote {out}", highlight=False, soft_wrap=True)


@app.command()
def synth(
    name: Annotated[
        str,
        typer.Argument(
            metavar="SET",
            help="tiny, demo, train, val, test; twins, unseen, probe (for evaluation); infrared_train, infrared_test, "
            "thermal_train, thermal_test.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write imgs/ and reid_raw.json to.")],
    ids: Annotated[int | None, typer.Option(help="How many people, instead of the set's own number.", min=1)] = None,
    images: Annotated[int | None, typer.Option(help="Images of each person.", min=1)] = None,
    height: Annotated[int | None, typer.Option(help="Image height in pixels.", min=64, max=1024)] = None,
    width: Annotated[int | None, typer.Option(help="Image width in pixels.", min=32, max=512)] = None,
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 2,
    sheet: Annotated[
        Path | None, typer.Option(help="Also write a contact sheet of up to 60 images to this PNG.")
    ] = None,
) -> None:
    """Render a set of synthetic pedestrians with captions."""
    from dataclasses import replace

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from model.sheets import contact_sheet, save_png, some
    from model.synth.generate import SETS, generate

    if name not in SETS:
        _fail(f"There is no set {name!r}; choose one of {', '.join(SETS)}.")
    changes: dict[str, Any] = {"ids": ids, "images_per_id": images, "height": height, "width": width}
    spec = replace(SETS[name], **{k: v for k, v in changes.items() if v is not None})
    with Progress("rendering", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=errors) as bar:
        task = bar.add_task("people", total=spec.ids)
        manifest = generate(
            spec, out, workers, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    console.print(f"Wrote {manifest}")
    if sheet is not None:
        people = range(spec.first_pid, spec.first_pid + spec.ids)  # other sets may share the folder
        families: dict[int, list[dict[str, Any]]] = {}  # a person and their twins are drawn side by side
        for number, row in enumerate(json.loads(manifest.read_text())):
            if row["id"] in people:
                families.setdefault(row["base"] if spec.twins else -number, []).append(row)
        size = max(map(len, families.values()))
        rows = [row for family in some(list(families.values()), max(60 // size, 1)) for row in family]
        labels = [
            " ".join(str(row[key]) for key in ("camera", "view", "modality", "changed") if row.get(key)) for row in rows
        ]
        save_png(contact_sheet([out / "imgs" / row["file_path"] for row in rows], 12, labels=labels), sheet)
        console.print(f"Wrote {sheet}")


@checkpoint_app.command("show")
def checkpoint_show(
    path: Annotated[
        str, typer.Argument(help="A checkpoint file, or a shipped one: `default`, `infrared`.")
    ] = "default",
) -> None:
    """Print what a checkpoint says of itself: network, data, preprocessing, measured quality."""
    from model.checkpoint import describe, shipped

    console.print_json(json.dumps(describe(shipped(path))))


if __name__ == "__main__":
    main()
