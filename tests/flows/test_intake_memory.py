"""An archive much larger than the memory its intake may take."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.flows.processes import ROOT
from tests.postgres_fixtures import fresh_database

MEGABYTES = int(os.environ.get("INTAKE_MEMORY_MEGABYTES", "400"))
ALLOWED = 160 * 2**20  # a batch of at most 64 MiB, what the threads decode, and what the allocator keeps


def noise(count: int) -> Iterator[tuple[str, bytes]]:
    """Images of about a megabyte that no packing makes smaller."""
    for n in range(count):
        pixels = np.random.default_rng(n).integers(0, 256, (600, 580, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
        yield f"{n}.png", buffer.getvalue()


def pack(path: Path, count: int) -> None:
    lines = "\n".join(json.dumps({"file": f"{n}.png"}) for n in range(count)).encode()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as zipped:
            zipped.writestr("metadata.jsonl", lines)
            for name, data in noise(count):
                zipped.writestr(name, data)
        return
    with tarfile.open(path, "w") as tarred:
        _add(tarred, "metadata.jsonl", lines)
        for name, data in noise(count):
            _add(tarred, name, data)


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_memory_stays_flat_however_large_the_archive(tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"gallery{suffix}"
    pack(archive, MEGABYTES)
    assert archive.stat().st_size > 2 * ALLOWED or MEGABYTES < 400
    with fresh_database() as database:
        command = [
            sys.executable,
            "-m",
            "tests.flows.intake_process",
            database.url,
            str(tmp_path / "images"),
            str(archive),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    before, highest, state, total = done.stdout.split()
    assert (state, int(total)) == ("done", MEGABYTES)
    assert int(highest) - int(before) < ALLOWED, f"{(int(highest) - int(before)) / 2**20:.0f} MiB more"
