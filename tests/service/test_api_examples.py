"""The examples of docs/api.md as they are printed: every block of Python, and every block of curl.

They show no key, as for a service that is open; here there are accounts, so that those of access work, too.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from indexer import worker
from service.case_schemas import CaseResponse, ItemResponse
from service.client import Client, SeenImage
from service.search_schemas import SearchResponse
from tests.helpers import make_tiny_checkpoint
from tests.service.accounts import EVERY_ROLE, key, user
from tests.service.conftest import Service, encoded, pixels, running_service, wait_until, zipped

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")
PRINTED, ROOT = "http://127.0.0.1:8000", "/srv/deliveries"
SHELL = """
curl() {
  case " $* " in
    *Authorization*|*" jar "*) command curl --fail-with-body --max-time 60 "$@" ;;
    *) command curl --fail-with-body --max-time 60 -H "Authorization: Bearer $KEY" "$@" ;;
  esac
}
person-search() { echo "$KEY"; }  # its commands have tests of their own
"""


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    assert len(found) > 10
    return found


@dataclass
class World:
    """A service that asks who is calling, with a worker, six images, the files the examples name, and kim."""

    service: Service
    folder: Path
    url: str
    key: str

    def settle(self) -> None:
        """After a change of checkpoints it takes a moment until searches are answered again."""
        ask = {"query": {"text": "a man"}}
        wait_until(lambda: self.service.search(ask).status_code == 201, "searches are answered")
        wait_until(lambda: self.service.http.get("/readyz").status_code == 200, "all is ready")

    def adapted(self, block: str) -> str:
        return block.replace(PRINTED, self.url).replace(ROOT, str(self.folder))


@contextmanager
def world(folder: Path) -> Iterator[World]:
    checkpoint = folder / "first.safetensors"
    make_tiny_checkpoint(checkpoint)
    make_tiny_checkpoint(folder / "better.safetensors", seed=8)
    write_deliveries(folder)
    settings: dict[str, Any] = {"auth": "required", "rate_limit": 0, "intake_roots": (str(folder),), "device": "cpu"}
    settings |= {"max_checkpoint_bytes": 2**26}
    with running_service(folder / "data", checkpoint=checkpoint, **settings) as service:
        stop, load = threading.Event(), service.context.files.load
        arguments = (service.database, service.context.store, None, service.settings, stop)
        working = threading.Thread(target=worker.run, args=arguments, kwargs={"load": load}, daemon=True)
        working.start()
        try:
            user(service, "kim", *EVERY_ROLE)
            shown = key(service, *EVERY_ROLE)[0]
            service.http.headers["Authorization"] = f"Bearer {shown}"
            service.camera("station-north")
            for n in range(6):
                moment = datetime.now(UTC) - timedelta(hours=n)
                image = encoded(pixels(n, 256, 128))
                known = {"captured_at": moment.isoformat(), "identity": f"visitor-{17 + n % 2}", "tags": ["platform"]}
                service.added(image, camera_id="station-north", external_id=f"north-{n}", **known)
            ask = {"query": {"text": "a man"}}
            wait_until(lambda: bool(service.found(ask)["candidates"] == 6), "all images can be found")
            yield World(service, folder, str(service.http.base_url).rstrip("/"), shown)
        finally:
            stop.set()
            working.join(30)


def write_deliveries(folder: Path) -> None:
    a, b = (encoded(pixels(seed, 64, 32), "JPEG") for seed in (50, 51))
    lines = [{"file": "a.jpg"}, {"file": "north/b.jpg", "camera_id": "station-north"}]
    archive = zipped({"a.jpg": a, "north/b.jpg": b}, lines)
    (folder / "gallery.zip").write_bytes(archive)
    (folder / "person.jpg").write_bytes(encoded(pixels(99, 256, 128), "JPEG"))
    manifest = "".join(f"{line}\n".replace("'", '"') for line in lines).encode()
    for where in (folder, folder / "2026-09-01"):
        (where / "north").mkdir(parents=True, exist_ok=True)
        for name, data in {"metadata.jsonl": manifest, "a.jpg": a, "b.jpg": b, "north/b.jpg": b}.items():
            (where / name).write_bytes(data)
    with tarfile.open(folder / "gallery.tar.gz", "w:gz") as tar:
        for name, data in {"metadata.jsonl": manifest, "a.jpg": a, "north/b.jpg": b}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_the_examples_in_python_run_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with world(tmp_path) as here:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PERSON_SEARCH_API_KEY", here.key)
        names: dict[str, Any] = {}
        for block in blocks("python"):  # one after the other, as somebody would type them
            here.settle()
            exec(compile(here.adapted(block), block, "exec"), names)  # noqa: S102
        assert names["report"].passed and names["end"].done and names["receipt"].state == "done"
        assert names["why"].phrases and names["image"].identity == "visitor-17"
        names["client"].close()


@pytest.mark.skipif(
    shutil.which("curl") is None or shutil.which("bash") is None, reason="curl or bash is not on this machine"
)
def test_the_examples_of_curl_run_as_printed(tmp_path: Path) -> None:
    with world(tmp_path) as here, Client(here.url, api_key=here.key) as client:
        for number, block in enumerate(blocks("bash")):
            here.settle()
            made = Made(here, client, number)
            named = re.findall(r"\$([A-Z_]+)", block)
            known = {name: str(VARIABLES[name](made)) for name in dict.fromkeys(named) if name in VARIABLES}
            written = re.sub(r"^(curl .*?)( +# 409 when .*)$", r"\1 || test $? = 22\2", block, flags=re.MULTILINE)
            done = subprocess.run(
                ["bash", "-euc", SHELL + here.adapted(written)],
                env={**os.environ, "KEY": here.key, **known},
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr}"


class Made:
    """Something of everything that the examples name by its id, made when it is named."""

    def __init__(self, here: World, client: Client, number: int) -> None:
        self.here, self.client, self.number = here, client, number

    @cached_property
    def image(self) -> SeenImage:
        data = encoded(pixels(1000 + self.number, 256, 128))
        return self.client.add_image(data, {"external_id": f"new-{self.number}"})

    @cached_property
    def search(self) -> SearchResponse:
        """One that found the image, which takes until it is embedded."""
        ask = {"query": {"text": "a man in a red shirt and black pants"}, "limit": 2}
        found: list[SearchResponse] = []

        def finds_it() -> bool:
            found[:] = [self.client.search(ask)]
            return self.image.id in [one.image_id for one in self.client.results(found[0])]

        wait_until(finds_it, "the image is found")
        return found[0]

    @cached_property
    def case(self) -> CaseResponse:
        return self.client.create_case({"title": "a case"})

    @cached_property
    def item(self) -> ItemResponse:
        return self.client.add_item(self.case.id, {"search_id": self.search.id, "image_id": self.image.id})

    def checkpoint_id(self) -> str:
        """A candidate that is embedded."""
        with (self.here.folder / "better.safetensors").open("rb") as file:
            id = self.client.register_checkpoint(file).id
        wait_until(lambda: not getattr(self.client.checkpoint(id).coverage, "pending", 0), "all are embedded")
        return id


VARIABLES: dict[str, Callable[[Made], object]] = {
    "IMAGE_ID": lambda made: made.image.id,
    "ETAG": lambda made: made.image.etag,
    "SEARCH_ID": lambda made: made.search.id,
    "NEXT_CURSOR": lambda made: made.search.next_cursor,
    "SAVED_ID": lambda made: made.client.save_search("a man", {"query": {"text": "a man"}}).id,
    "INGESTION_ID": lambda made: made.client.ingest([b'{"external_id": "absent"}'], "application/x-ndjson").id,
    "ERASURE_ID": lambda made: made.client.erase({"identity": "nobody", "reason": "to have one"}).id,
    "HOLD_ID": lambda made: made.client.place_hold({"identity": "nobody", "reason": "to have one"}).id,
    "CHECKPOINT_ID": Made.checkpoint_id,
    "CASE_ID": lambda made: made.case.id,
    "ITEM_ID": lambda made: made.item.id,
    "EXPORT_ID": lambda made: made.client.export_case(made.case.id).id,
    "USER_ID": lambda made: user(made.here.service, f"somebody {made.number}", "investigator").id,
    "KEY_ID": lambda made: key(made.here.service, "ingest")[1].id,
}
