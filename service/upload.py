"""Turning what lies on a user's disk into one delivery for the API, and watching it become searchable."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from service.client import Client, ServiceError
from service.schemas import IngestionProgress

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
ZIP, TAR, GZIP, LINES = "application/zip", "application/x-tar", "application/gzip", "application/x-ndjson"
TARS = {".tar": TAR, ".tgz": GZIP, ".gz": GZIP}
MANIFEST = "metadata.jsonl"
CHUNK = 1 << 20


@dataclass(frozen=True)
class Upload:
    """One delivery: its media type and its bytes, read as they are sent."""

    media_type: str
    chunks: Iterable[bytes]


@contextmanager
def open_upload(source: Path, camera: str | None = None) -> Iterator[Upload]:
    """A zip or a tar as it is; a folder, or a manifest with the files it names, as a tar that is made while it is sent;
    a manifest whose lines name no file as metadata of images that are there already.

    A folder without metadata.jsonl is described by its files: external_id is the path within the folder, the camera is
    `camera`, and there is no capture time. Raises ServiceError when there is nothing to send.
    """
    if camera is not None and source.exists() and (not source.is_dir() or (source / MANIFEST).exists()):
        raise ServiceError(f"{source} names the camera of each image itself; leave out --camera.")
    if source.is_dir():
        yield Upload(TAR, _folder(source, camera))
    elif not source.is_file():
        raise ServiceError(f"There is neither a zip, a tar, a manifest nor a folder at {source}.")
    elif source.suffix.lower() == ".jsonl":
        named = _named_files(source)
        with source.open("rb") as lines:
            yield Upload(TAR, _tar(source, named)) if named else Upload(LINES, _chunks(lines))
    else:
        with source.open("rb") as archive:
            yield Upload(TARS.get(source.suffix.lower(), ZIP), _chunks(archive))


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.read(CHUNK), b"")


def _folder(folder: Path, camera: str | None) -> Iterator[bytes]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES)
    manifest = folder / MANIFEST
    if not files and not manifest.exists():
        raise ServiceError(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}) and no {MANIFEST}.")
    named = {path.relative_to(folder).as_posix(): path for path in files}
    if manifest.exists():
        return _tar(manifest, named)
    rows = [{"external_id": name, "file": name, **({"camera_id": camera} if camera else {})} for name in named]
    return _tar("".join(json.dumps(row) + "\n" for row in rows).encode(), named)


def _named_files(manifest: Path) -> dict[str, Path]:
    """The files that lines of a manifest name and that are there. What is wrong with a line is the service's to say."""
    named: dict[str, Path] = {}
    with manifest.open("rb") as lines:
        for line in lines:
            try:
                known = json.loads(line)
            except ValueError:
                continue
            name = known.get("file", known.get("path")) if isinstance(known, dict) else None
            if isinstance(name, str) and ".." not in PurePosixPath(name).parts and not name.startswith("/"):
                named[name] = manifest.parent / name
    return named


def _tar(manifest: Path | bytes, files: dict[str, Path]) -> Iterator[bytes]:
    """A tar of a manifest and files by name, one file at a time in memory."""
    yield from _member(MANIFEST, manifest if isinstance(manifest, bytes) else manifest.read_bytes())
    for name, path in files.items():
        if path.is_file():
            yield from _member(name, path.read_bytes())
    yield bytes(2 * tarfile.BLOCKSIZE)


def _member(name: str, data: bytes) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    content = io.BytesIO(data)
    yield from _chunks(content)
    yield bytes(-len(data) % tarfile.BLOCKSIZE)


class _RateColumn(ProgressColumn):
    """Images a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} images/s")


def follow_with_progress(client: Client, ingestion_id: UUID, console: Console) -> IngestionProgress:
    """Show a progress bar, with rate and time left, until every item is searchable or refused.

    Returns the last state of the ingestion.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("embedding", total=None)

        def show(state: IngestionProgress) -> None:
            resting = sum(n for name, n in state.counts if name != "pending")
            bar.update(task, completed=resting, total=state.total or None)

        state = client.follow(ingestion_id, show)
    counts = ", ".join(f"{n} {name}" for name, n in state.counts if n)
    console.print(f"Ingestion {ingestion_id}: {counts or 'nothing to add'}.", highlight=False)
    return state
