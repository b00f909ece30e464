"""The demo as a stranger meets it: one command, real processes, the README's own examples run as printed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.client import Client, ServiceError

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
DEMO = [sys.executable, "-m", "service.cli", "demo"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A running demo; yields (its address, what it printed before it began to wait)."""
    data = tmp_path_factory.mktemp("demo")
    output = data / "output.txt"
    with output.open("w") as out:
        process = subprocess.Popen(
            [*DEMO, "--port", "0", "--data", str(data / "data")],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "200"},
        )
    try:
        deadline = time.monotonic() + 180
        while not (found := re.search(r"Open (http://127\.0\.0\.1:\d+)/", output.read_text())):
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.1)
        yield found[1], output.read_text()
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_prints_a_ranking_of_the_whole_gallery(demo: tuple[str, str]) -> None:
    address, printed = demo
    expected = len((ROOT / "service/demo_gallery/metadata.jsonl").read_text("utf-8").splitlines())
    assert f"{expected} indexed" in printed
    assert len(re.findall(r"^│\s*\d+\s*│", printed, re.MULTILINE)) == 10
    with Client(address) as client:
        assert client.ready().ready is True


def described_people() -> list[tuple[str, str]]:
    """(description, pid) of the README's table of ten."""
    rows = re.findall(r"^\| (.+?) \| \[?(\d+)\]?.*\|$", README, re.MULTILINE)
    assert len(rows) == 10
    return rows


@pytest.mark.parametrize(("description", "pid"), described_people())
def test_ten_descriptions_find_the_right_person(demo: tuple[str, str], description: str, pid: str) -> None:
    with Client(demo[0]) as client:
        answer = client.search({"query": {"text": description}, "limit": 10})
    assert pid in [str(result.image.external_id).split("_")[0] for result in answer.results]


def curl_examples() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    examples = [block for block in blocks if "curl" in block]
    assert examples
    return examples


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
@pytest.mark.parametrize("example", curl_examples())
def test_curl_examples_work_as_printed(demo: tuple[str, str], example: str) -> None:
    command = example.replace("http://127.0.0.1:8000", demo[0])
    done = subprocess.run(["sh", "-euc", command], capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert "status" not in answer, answer
    assert answer["results"][0]["rank"] == 1


def test_a_taken_port_is_a_sentence(demo: tuple[str, str], tmp_path: Path) -> None:
    port = demo[0].rsplit(":", 1)[1]
    done = subprocess.run([*DEMO, "--port", port, "--data", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"Port {port} is in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_searching_without_a_service_says_how_to_start_one() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServiceError, match="person-search serve"):
        client.version()
