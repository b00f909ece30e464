"""An installation as docker-compose.yml describes it, on the engine that `docker` speaks to.

It is a project of its own, with secrets of its own on a free port of loopback, and is removed afterwards. Where the
images of others cannot be pulled, because no registry is within reach, stand-ins are built from Debian's packages and
from Milvus Lite.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from service.client import Client, ServiceError

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PROJECT = "person-search-test"
STAND_INS = {
    "POSTGRES_IMAGE": ("postgres:17-bookworm", HERE / "postgres"),
    "PROXY_IMAGE": ("haproxy:3.2-bookworm", HERE / "proxy"),
    "MILVUS_IMAGE": ("milvusdb/milvus:v2.6.13", HERE / "milvus"),
}
DEADLINE = 600.0  # seconds until something that must come true counts as a failure
BUILD_SECONDS = 1800.0  # without anything in the engine's cache, torch has to be fetched


def attempt(
    *command: str | Path, seconds: float = DEADLINE, env: dict[str, str] | None = None, typed: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command at the root of the repository; `typed` is its standard input."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        input=typed,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def run(*command: str | Path, seconds: float = DEADLINE, env: dict[str, str] | None = None) -> str:
    """Standard output of a command that must succeed."""
    done = attempt(*command, seconds=seconds, env=env)
    said = f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {said}"
    return done.stdout


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.2)


@dataclass
class Installation:
    """Commands and calls to the running installation. `api_key` is set by whoever made one."""

    env: dict[str, str]
    port: int
    files: tuple[str, ...] = ("docker-compose.yml",)
    api_key: str = field(default="", repr=False)

    def compose(self, *arguments: str, seconds: float = DEADLINE) -> str:
        files = [part for file in self.files for part in ("--file", file)]
        return run("docker", "compose", *files, *arguments, env=self.env, seconds=seconds)

    def up(self) -> None:
        self.compose("up", "--detach", "--build", "--wait", seconds=BUILD_SECONDS)

    def client(self, retry_seconds: float = 0.0) -> Client:
        return Client(f"http://127.0.0.1:{self.port}", api_key=self.api_key or None, retry_seconds=retry_seconds)

    def container(self, service: str) -> str:
        """The id of a service's one container."""
        (found,) = self.compose("ps", "--quiet", service).split()
        return found

    def kill(self, container: str) -> None:
        """kill -9 of the container's first process, as the kernel does it when memory runs out.

        From a container that sees the engine's processes: `docker kill` would count as stopped by hand, and nothing
        that is killed within a container reaches its first process.
        """
        pid = inspect(container)["State"]["Pid"]
        see_all = ("--pid=host", "--user=0", "--network=none", "--entrypoint=python")
        run("docker", "run", "--rm", *see_all, "person-search-worker", "-c", f"import os; os.kill({pid}, 9)")

    def is_ready(self) -> bool:
        """Every check of /readyz passes, also the one that a worker is connected."""
        try:
            with self.client() as client:
                return all(check.ok for check in client.ready().checks)
        except ServiceError:
            return False

    def ranking(self, description: str) -> list[tuple[str | None, float]]:
        with self.client(retry_seconds=30) as client:
            found = client.search({"query": {"text": description}, "limit": 50})
            return [(result.image.external_id, round(result.similarity, 6)) for result in found.results]

    def first_ranking(self, description: str) -> list[tuple[str | None, float]]:
        """The first answer once all is ready again. Until then a search is refused with 503, or finds nobody listening;
        what /readyz says may be two seconds old."""
        found: list[list[tuple[str | None, float]]] = []

        def answered() -> bool:
            try:
                found.append(self.ranking(description))
            except ServiceError as error:
                if error.status not in (None, 502, 503):
                    raise
                return False
            return self.is_ready()

        wait_until(answered, "all is ready and a search is answered again")
        return found[0]

    def answers_with(self, ranking: list[tuple[str | None, float]], description: str) -> bool:
        """Six searches in a row are answered so; some replica may have been told of a change later than others."""
        try:
            return [self.ranking(description) for _ in range(6)] == [ranking] * 6
        except ServiceError:
            return False


def inspect(container: str) -> dict[str, Any]:
    (found,) = json.loads(run("docker", "inspect", container))
    return dict(found)


@contextlib.contextmanager
def installation(folder: Path) -> Iterator[Installation]:
    """A project with secrets in `folder`; nothing of it is started yet, and nothing is left of it afterwards."""
    assert attempt("docker", "version").returncode == 0, (
        "There is no Docker engine: start one, or set DOCKER_HOST to where one listens."
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {
        "COMPOSE_PROJECT_NAME": PROJECT,
        "COMPOSE_FILE": "docker-compose.yml",  # whatever the shell has set
        "PUBLISH": f"127.0.0.1:{port}",
        "SECRETS": str(folder / "secrets"),
        "DELIVERIES": str(folder / "deliveries"),
    }
    (folder / "deliveries").mkdir()
    with served_wheels() as wheels:
        if wheels:
            env |= {"PIP_FIND_LINKS": wheels, "BUILD_NETWORK": "host"}
        env |= images(env)
        run(ROOT / "docker" / "secrets", "create", env=env)
        made = Installation(env, port)
        everything = ("down", "--volumes", "--remove-orphans", "--timeout", "5")
        made.compose(*everything)  # what a run that was cut off has left
        try:
            yield made
        finally:
            made.compose(*everything)


def images(env: dict[str, str]) -> dict[str, str]:
    """For each image of others that cannot be had, the variable that names its stand-in."""
    chosen = {}
    for variable, (image, folder) in STAND_INS.items():
        if variable in os.environ or there(image):
            continue
        name = f"person-search-test-{folder.name}"
        run(*BUILD, "--network", env.get("BUILD_NETWORK", "default"), "--tag", name, folder, seconds=BUILD_SECONDS)
        chosen[variable] = name
    return chosen


BUILD = ("docker", "buildx", "build", "--quiet")


def there(image: str) -> bool:
    return any(attempt("docker", *how, image).returncode == 0 for how in (("image", "inspect"), ("pull", "--quiet")))


@contextlib.contextmanager
def served_wheels() -> Iterator[str | None]:
    """Where pip was told of a folder with wheels (PIP_FIND_LINKS), its address on loopback for the builds."""
    folder = Path(os.environ.get("PIP_FIND_LINKS", ""))
    if not os.environ.get("PIP_FIND_LINKS") or not folder.is_dir():
        yield None
        return

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def hadolint() -> str:
    found = shutil.which("hadolint")
    assert found, "hadolint is missing: `make test-deploy` installs it."
    return found
