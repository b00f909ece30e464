"""What can be said of the files for an installation without an engine: nothing is open that need not be, no password is
in them, and every metric that a rule or a panel asks for is one that the program has."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from service.metrics import ServiceMetrics, WorkerMetrics, _Standing
from service.settings import ServiceSettings
from tests.postgres_fixtures import fresh_database

ROOT = Path(__file__).parents[2]
FILES = {path.name: path for path in ROOT.glob("docker-compose*.yml")}
MONITORING = ROOT / "docker" / "monitoring"
OURS = ("worker", "service")  # their images have health checks of their own
METRIC = re.compile(r"\b(?:person_search|process)_[a-z_]+\b")


class Loader(yaml.SafeLoader):
    """YAML as compose reads it: `!reset` removes and `!override` replaces what another file says."""


Loader.add_constructor("!reset", lambda loader, node: None)
Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))


def services(name: str) -> dict[str, Any]:
    return dict(yaml.load(FILES[name].read_text("utf-8"), Loader)["services"])


WHOLE = [
    pytest.param(file, name, id=f"{name} of {file}")
    for file in FILES
    for name, service in services(file).items()
    if ("image" in service and "build" not in service) or file == "docker-compose.yml"
]


def test_the_files_are_those_the_guide_names() -> None:
    assert set(FILES) == {"docker-compose.yml", "docker-compose.gpu.yml", "docker-compose.scale.yml"}
    guide = (ROOT / "docs" / "operations.md").read_text("utf-8")
    assert all(name in guide for name in FILES)


@pytest.mark.parametrize(("file", "name"), WHOLE)
def test_every_container_is_held_tight(file: str, name: str) -> None:
    service = services(file)[name]
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service and not service.get("privileged")
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"] and service["pids_limit"]
    assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")
    assert service["networks"] and "network_mode" not in service and "pid" not in service
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", []))
    if name == "migrate":  # it ends
        assert service["healthcheck"] == {"disable": True}
    elif name not in OURS:
        assert service["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("target", OURS)
def test_our_images_say_whether_they_are_healthy(target: str) -> None:
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text("utf-8")
    _, _, after = dockerfile.partition(f"FROM runtime AS {target}\n")
    assert "HEALTHCHECK" in after.partition("\nFROM ")[0]
    assert "USER 10001:10001" in dockerfile and "# syntax=" not in dockerfile


def test_one_port_is_published_and_only_on_loopback() -> None:
    ports = {name: service.get("ports") for name, service in services("docker-compose.yml").items()}
    published = {name: ports for name, ports in ports.items() if ports}
    grafana = published.pop("grafana")  # in its profile, for those who ask for it
    assert grafana == ["${PUBLISH_GRAFANA:-127.0.0.1:3000}:3000"]
    assert published == {"service": ["${PUBLISH:-127.0.0.1:8000}:8000"]}
    scaled = services("docker-compose.scale.yml")
    assert {name for name, service in scaled.items() if service.get("ports")} == {"proxy"}
    assert "ports" in scaled["service"] and scaled["service"]["ports"] is None, "the proxy's is the one port there"


def test_what_is_started_first_is_healthy_first() -> None:
    compose = services("docker-compose.yml")
    for name in ("service", "worker"):
        assert compose[name]["depends_on"] == {
            "postgres": {"condition": "service_healthy"},
            "migrate": {"condition": "service_completed_successfully"},
        }
    assert compose["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_no_password_is_in_a_file() -> None:
    for file in FILES:
        for name, service in services(file).items():
            for variable, value in (service.get("environment") or {}).items():
                secret = re.search("PASSWORD|SECRET|TOKEN|DATABASE_URL", variable)
                assert not secret or str(value).startswith("/run/secrets/"), f"{name}: {variable}"
        assert "://person_search:" not in FILES[file].read_text("utf-8")
    assert {"secrets/", ".env"} <= set((ROOT / ".gitignore").read_text("utf-8").split())


def test_every_setting_in_the_files_exists() -> None:
    known = {f"PERSON_SEARCH_{name.upper()}" for name in ServiceSettings.model_fields}
    for file in FILES:
        for name, service in services(file).items():
            ours = {key for key in service.get("environment") or {} if key.startswith("PERSON_SEARCH_")}
            assert ours <= known, f"{name} of {file}"


def test_only_what_the_images_need_is_sent_to_the_engine() -> None:
    first, *kept = [
        line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and not line.startswith("#")
    ]
    assert first == "*", "what is not named stays away, secrets and tests among it"
    named = {line.removeprefix("!") for line in kept if line.startswith("!")}
    assert named == {
        *("LICENSE", "README.md", "pyproject.toml", "docker/*.py", "docs/openapi.json", "requirements"),
        *("model", "indexer", "service", "migrations"),
    }


# ------------------------------------------------------------------------------------------------------------- secrets


def create(folder: Path) -> None:
    command = [ROOT / "docker" / "secrets", "create"]
    subprocess.run(command, env={**os.environ, "SECRETS": str(folder)}, check=True, capture_output=True)


def test_secrets_are_made_once_and_only_their_owner_gets_at_them(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    create(folder)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    password = made["postgres_password"]
    assert len(password) == 64 and password != made["grafana_password"]
    assert made["person_search_database_url"] == f"postgresql://person_search:{password}@postgres:5432/person_search"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    create(folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == made

    mentioned = yaml.load(FILES["docker-compose.yml"].read_text("utf-8"), Loader)["secrets"]
    assert set(mentioned) == set(made)
    create(tmp_path / "others")
    assert (tmp_path / "others" / "postgres_password").read_text() != password


# ---------------------------------------------------------------------------------------------------------- monitoring


def metrics_of_the_program(tmp_path: Path) -> set[str]:
    """The names of all samples of a service and of a worker, also of counters and histograms that have none yet."""
    service, worker = ServiceMetrics(), WorkerMetrics(tmp_path)
    with fresh_database() as database:
        live = SimpleNamespace(encoder=None, index=[], checkpoint_id="0" * 16, seq=0)
        context = SimpleNamespace(
            settings=SimpleNamespace(data_dir=tmp_path),
            replica=SimpleNamespace(state=live, gap=SimpleNamespace(total=0)),
            admission=SimpleNamespace(running=0, waiting=0),
            database=database,
        )
        standing = CollectorRegistry()
        standing.register(_Standing(context))  # type: ignore[arg-type]
        families = [
            family for registry in (service.registry, worker.registry, standing) for family in registry.collect()
        ]
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}
    return {family.name + suffix for family in families for suffix in suffixes[family.type]}


def test_alerts_and_panels_ask_for_metrics_that_exist(tmp_path: Path) -> None:
    dashboard = json.loads((MONITORING / "grafana" / "dashboards" / "person-search.json").read_text("utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
    asked += [rule["expr"] for rule in rules]
    named = {name for expression in asked for name in METRIC.findall(expression)}
    assert len(named) > 20
    assert named <= metrics_of_the_program(tmp_path)


def test_every_alert_has_a_meaning_in_the_guide() -> None:
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
    guide = (ROOT / "docs" / "operations.md").read_text("utf-8")
    assert [rule["alert"] for rule in rules if f"`{rule['alert']}`" not in guide] == []
    assert all(rule["annotations"]["summary"].endswith(".") and rule["labels"]["severity"] for rule in rules)


def test_panels_do_not_lie_on_each_other() -> None:
    dashboard = json.loads((MONITORING / "grafana" / "dashboards" / "person-search.json").read_text("utf-8"))
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} lies on {taken.get(cell)}"
            taken[cell] = panel["title"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
