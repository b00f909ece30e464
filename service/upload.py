"""Turning what lies on a user's disk into one archive for the API, and watching it become searchable."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from service.client import Client, Json, ServiceError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


@contextmanager
def open_archive(source: Path, scratch: Path, camera: str | None = None) -> Iterator[BinaryIO]:
    """Open a zip as it is, or pack a folder into one under ``scratch``.

    A folder without metadata.jsonl is described by its files: external_id is the path within the folder, the camera
    is ``camera``, and there is no capture time. Raises ServiceError when there is nothing to send.
    """
    if source.is_dir():
        packed = scratch / "upload.zip"
        _pack(source, packed, camera)
        source = packed
    elif not source.is_file():
        raise ServiceError(f"There is neither a zip nor a folder at {source}.")
    with source.open("rb") as archive:
        yield archive


def _pack(folder: Path, target: Path, camera: str | None) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES)
    manifest = folder / "metadata.jsonl"
    if not files and not manifest.exists():
        raise ServiceError(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}) and no metadata.jsonl.")
    if manifest.exists() and camera is not None:
        raise ServiceError(f"{manifest} names the camera of each image; leave out --camera.")
    names = [p.relative_to(folder).as_posix() for p in files]
    rows = [{"external_id": n, "file": n, **({"camera_id": camera} if camera else {})} for n in names]
    text = manifest.read_text("utf-8") if manifest.exists() else "".join(json.dumps(row) + "\n" for row in rows)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("metadata.jsonl", text)
        for path, name in zip(files, names, strict=True):
            archive.write(path, name)


def follow_with_progress(client: Client, ingestion_id: str, console: Console) -> Json:
    """Show a progress bar until every item is searchable or refused. Returns the last state of the ingestion."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("embedding", total=None)

        def show(state: Json) -> None:
            counts = state["counts"]
            resting = sum(n for name, n in counts.items() if name != "pending")
            bar.update(task, completed=resting, total=state["total"] or None)

        state = client.follow(ingestion_id, show)
    counts = ", ".join(f"{n} {name}" for name, n in state["counts"].items() if n)
    console.print(f"Ingestion {ingestion_id}: {counts or 'nothing to add'}.", highlight=False)
    return state
