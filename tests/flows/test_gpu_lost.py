"""A service that loses its GPU says so to whoever asks, and ends, so that it is started again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx

from tests.flows.test_service_killed import ROOT, free_port, until
from tests.flows.test_stopping import ASK, Running
from tests.helpers import make_tiny_checkpoint
from tests.postgres_fixtures import fresh_database


def test_a_service_without_its_gpu_says_why_and_ends(tmp_path: Path) -> None:
    checkpoint, log, broken = tmp_path / "tiny.safetensors", tmp_path / "serve.log", tmp_path / "broken"
    make_tiny_checkpoint(checkpoint)
    port = free_port()
    with fresh_database() as database, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        settings = {
            "data_dir": tmp_path / "data",
            "database_url": database.url,
            "checkpoint": checkpoint,
            "port": port,
            "auth": "open",
            "metrics_port": 0,
            "readiness_seconds": 0,
            "shutdown_notice_seconds": 3,
        }
        environment = {f"PERSON_SEARCH_{name.upper()}": str(value) for name, value in settings.items()}
        command = [sys.executable, "-m", "tests.flows.gpu_lost_process", str(broken)]
        with log.open("ab") as out:
            process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=out, stderr=out, cwd=ROOT)
        try:
            service = Running(process, http, port, log)
            until(service.ready, log)
            assert http.post("/api/v1/searches", json=ASK).status_code == 201
            broken.touch()
            refused = http.post("/api/v1/searches", json=ASK)
            assert (refused.status_code, refused.json()["code"]) == (503, "device_lost")
            assert "unspecified launch failure" in refused.json()["detail"] and int(refused.headers["Retry-After"]) > 0
            ready = http.get("/readyz")
            assert ready.status_code == 503
            (check,) = ready.json()["checks"]
            assert check["name"] == "device" and "unspecified launch failure" in check["detail"]
            assert process.wait(60) == 1
            assert "device_lost" in service.events() and "The GPU stopped working" in log.read_text().splitlines()[-1]
        finally:
            process.kill()
            process.wait(60)
