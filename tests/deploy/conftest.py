"""One installation for all tests that need an engine, with the demo gallery in it, added over HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from service.client import Client
from service.demo import GALLERY
from service.upload import open_upload
from tests.deploy.engine import Installation, installation, wait_until

PASSWORD = "plum-tram-orbit-7"
ROLES = ("operator", "ingest", "auditor")


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Built, started, set up with the link that the service printed, and filled."""
    with installation(tmp_path_factory.mktemp("installation")) as made:
        made.up()
        made.api_key = set_up(made)
        wait_until(made.is_ready, "service and worker are ready")
        with made.client() as client, open_upload(GALLERY) as upload:
            accepted = client.ingest(upload.chunks, upload.media_type, register_cameras=True)
            ended = client.follow(accepted.id)
            assert ended.error is None
        yield made


def set_up(made: Installation) -> str:
    """The first user with the token of the set-up link, and an API key made by that user."""
    link = re.compile(r"http://127\.0\.0\.1:8000/#setup=(\S+)")
    printed = link.findall(made.compose("logs", "--no-log-prefix", "service"))
    assert len(printed) == 1, "the first start prints the link, once"
    with Client(f"http://127.0.0.1:{made.port}") as client:
        client.set_up({"token": printed[0], "name": "kim", "password": PASSWORD})
        client.sign_in({"name": "kim", "password": PASSWORD})
        expires = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        request = {"name": "deploy", "roles": list(ROLES), "cameras": None, "expires_at": expires}
        return str(client.create_api_key(request).key)
