"""The first start of a service that asks who is calling: from the printed link to a search with an API key."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from service.client import Client, ServiceError
from tests.flows.test_service_killed import ROOT, free_port, until
from tests.helpers import make_tiny_checkpoint

COMMAND = [sys.executable, "-m", "service.cli"]
KIM = {"name": "kim", "password": "plum-tram-orbit-7"}


def test_the_printed_link_lets_the_first_user_in(tmp_path: Path) -> None:
    make_tiny_checkpoint(tmp_path / "tiny.safetensors")
    url = f"http://127.0.0.1:{free_port()}"
    environment = {
        **os.environ,
        "PERSON_SEARCH_DATA_DIR": str(tmp_path / "data"),
        "PERSON_SEARCH_CHECKPOINT": str(tmp_path / "tiny.safetensors"),
        "PERSON_SEARCH_PORT": url.rsplit(":", 1)[1],
        "PERSON_SEARCH_API_KEY": "psk_of_somebody",  # for commands; a service that finds it does not mind
    }
    printed, log = tmp_path / "printed.txt", tmp_path / "log.jsonl"
    with printed.open("wb") as out, log.open("wb") as err:
        service = subprocess.Popen([*COMMAND, "serve"], env=environment, stdout=out, stderr=err, cwd=ROOT)
    try:
        with Client(url) as client:
            until(client.ready, log)
            with pytest.raises(ServiceError, match="--api-key-file"):
                client.search({"query": {"text": "a man"}})
        link = re.search(rf"{re.escape(url)}/#setup=(\S+)", printed.read_text())
        assert link, printed.read_text()
        assert httpx.post(f"{url}/api/v1/setup", json={"token": link[1], **KIM}).status_code == 201
        signed_in = httpx.post(f"{url}/api/v1/session", json=KIM)
        assert signed_in.status_code == 201 and signed_in.json()["roles"] == ["admin"]

        arguments = ["api-key", "create", "mine", "--role", "operator"]
        made = subprocess.run([*COMMAND, *arguments], env=environment, cwd=ROOT, capture_output=True, check=True)
        with Client(url, api_key=made.stdout.decode().strip()) as client:
            assert client.search({"query": {"text": "a man"}}).candidates == 0
        told = log.read_text()
        for secret in (link[1], KIM["password"], made.stdout.decode().strip(), signed_in.json()["csrf_token"]):
            assert secret not in told
    finally:
        service.terminate()
        assert service.wait(30) == 0
