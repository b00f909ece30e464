"""The installation as a whole: it comes up, answers, and answers the same after everything was killed or taken down."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.deploy.engine import (
    BUILD_SECONDS,
    HERE,
    ROOT,
    Installation,
    answers,
    attempt,
    hadolint,
    inspect,
    run,
    wait_until,
)

pytestmark = pytest.mark.deploy

DESCRIPTION = "a woman in a blue dress with a red handbag"
ONES = ("postgres", "service", "worker")
SCALED = ("docker-compose.yml", "docker-compose.scale.yml")


@pytest.fixture(scope="session")
def ranking(installed: Installation) -> list[tuple[str | None, float]]:
    """The ranking of the demo's query as the fresh installation gives it."""
    return installed.ranking(DESCRIPTION)


@pytest.mark.parametrize("extra", [(), ("gpu",), ("scale",), ("gpu", "scale")], ids="+".join)
def test_compose_accepts_the_files(extra: tuple[str, ...]) -> None:
    files = [part for name in extra for part in ("--file", f"docker-compose.{name}.yml")]
    run("docker", "compose", "--file", "docker-compose.yml", *files, "--profile", "monitoring", "config", "--quiet")


def test_hadolint_has_nothing_to_say() -> None:
    for dockerfile in (ROOT / "docker" / "Dockerfile", *HERE.glob("*/Dockerfile")):
        assert run(hadolint(), dockerfile) == ""


def test_the_first_search_finds_who_is_described(
    installed: Installation, ranking: list[tuple[str | None, float]]
) -> None:
    assert len(ranking) == 50
    assert any(str(external_id).startswith("07674") for external_id, _ in ranking[:10])
    assert answers(f"http://127.0.0.1:{installed.port}/"), "the page is in the image"


def test_the_guide_leads_from_a_bare_server_to_the_first_search(installed: Installation) -> None:
    """Its last four commands as they are printed; with those before them the installation was made."""
    guide = (ROOT / "docs" / "operations.md").read_text("utf-8")
    commands = guide.partition("## In containers")[2].partition("```bash\n")[2].partition("```")[0].splitlines()
    assert len(commands) == 10
    assert commands[3].startswith("make secrets && ") and commands[4].endswith("up --detach --build --wait")
    rest = "\n".join(commands[6:]).replace(" deliveries/", f" {installed.env['DELIVERIES']}/")
    said = run("bash", "-euo", "pipefail", "-c", rest, env=installed.env)
    assert "07674" in said, said


LOOK = """
import json, os
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
named = [status[name].strip() for name in ("CapEff", "CapBnd", "NoNewPrivs")]
writable = [os.access("/", os.W_OK), os.access("/opt", os.W_OK)]
print(json.dumps([os.getuid(), named, writable, bool(os.statvfs("/").f_flag & os.ST_RDONLY)]))
"""


def test_containers_can_do_no_more_than_they_have_to(installed: Installation) -> None:
    for service in ("service", "worker"):
        seen = json.loads(installed.compose("exec", "-T", service, "python", "-c", LOOK))
        assert seen == [10001, ["0" * 16, "0" * 16, "1"], [False, False], True], service
    for service in ONES:
        found = inspect(installed.container(service))
        assert found["HostConfig"]["Memory"] > 0
        assert found["HostConfig"]["CapAdd"] is None and found["HostConfig"]["ReadonlyRootfs"], service
        published = {key for key, value in found["NetworkSettings"]["Ports"].items() if value}
        assert published == ({"8000/tcp"} if service == "service" else set())


def test_worker_and_database_have_no_way_out(installed: Installation) -> None:
    (inside,) = json.loads(run("docker", "network", "inspect", f"{installed.env['COMPOSE_PROJECT_NAME']}_inside"))
    assert inside["Internal"] is True
    for service in ("worker", "postgres"):
        assert len(inspect(installed.container(service))["NetworkSettings"]["Networks"]) == 1


def test_no_password_is_where_others_read(installed: Installation) -> None:
    secrets = [path.read_text() for path in Path(installed.env["SECRETS"]).iterdir()]
    assert len(secrets) == 3
    password = next(secret for secret in secrets if "://" not in secret)
    logs = installed.compose("logs")
    for container in installed.compose("ps", "--all", "--quiet").split():
        seen = run("docker", "inspect", container) + attempt("docker", "top", container, "-ef").stdout + logs
        assert not any(secret in seen for secret in (*secrets, password))


FORBIDDEN = r"""
import os, pathlib, shutil, sys, sysconfig
programs = "cc gcc g++ clang tcc as ld make cmake cargo rustc go nvcc javac node npm git curl".split()
print([name for name in programs if shutil.which(name)])
site = pathlib.Path(sysconfig.get_path("purelib"))
ours = [site / name for name in ("model", "indexer", "service", "migrations")]
print([str(path) for root in ours for path in root.rglob("*test*")])
print([str(path) for path in (site / "torch" / "test", site / "torch" / "include", site / "tests") if path.exists()])
print([str(path) for path in pathlib.Path("/").glob("*/**/secrets") if path.is_dir() and "/proc/" not in str(path)])
print([name for name in os.environ if any(word in name for word in ("PASSWORD", "SECRET", "TOKEN", "DATABASE_URL"))])
"""


@pytest.mark.parametrize("target", ["service", "worker"])
def test_the_image_holds_no_compiler_no_test_and_no_secret(installed: Installation, target: str) -> None:
    image = f"person-search-{target}"
    isolated = ("--rm", "--network=none", "--user=0", "--entrypoint=python")
    assert run("docker", "run", *isolated, image, "-c", FORBIDDEN).split() == ["[]"] * 5
    history = run("docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
    secrets = [path.read_text() for path in Path(installed.env["SECRETS"]).iterdir()]
    assert not any(secret in history for secret in secrets)


@pytest.mark.parametrize("service", ONES)
def test_the_same_answer_after_kill_9(
    installed: Installation, ranking: list[tuple[str | None, float]], service: str
) -> None:
    container = installed.container(service)
    before = inspect(container)["RestartCount"]
    installed.kill(container)
    wait_until(lambda: inspect(container)["RestartCount"] > before, f"the engine starts {service} again")
    assert installed.first_ranking(DESCRIPTION) == ranking
    with installed.client() as client:
        assert client.verify_audit().sound


def test_the_same_answer_after_down_and_up(installed: Installation, ranking: list[tuple[str | None, float]]) -> None:
    installed.compose("down")
    assert not answers(f"http://127.0.0.1:{installed.port}/livez")
    installed.up()
    assert installed.first_ranking(DESCRIPTION) == ranking
    assert "#setup=" not in installed.compose("logs", "service"), "there is a user: no further link"


CONNECT = """
import psycopg, sys
psycopg.connect(f"postgresql://person_search:{sys.stdin.read()}@postgres/person_search")
"""


def test_the_password_of_the_database_can_be_changed(
    installed: Installation, ranking: list[tuple[str | None, float]]
) -> None:
    password = Path(installed.env["SECRETS"]) / "postgres_password"
    old = password.read_text()
    run(ROOT / "docker" / "secrets", "rotate", env=installed.env)
    assert password.read_text() != old
    assert installed.first_ranking(DESCRIPTION) == ranking
    done = attempt("docker", "exec", "-i", installed.container("worker"), "python", "-c", CONNECT, typed=old)
    assert done.returncode != 0 and "password authentication failed" in done.stderr


def test_several_replicas_behind_the_proxy(installed: Installation, ranking: list[tuple[str | None, float]]) -> None:
    """One published port, one ranking whoever answers, and no failed search while a replica is killed. The index is in
    Milvus, which is filled from the database, and back after its own kill -9."""
    scaled = Installation(installed.env, installed.port, SCALED, installed.api_key)
    installed.compose("down")
    try:
        scaled.up()
        replicas = scaled.compose("ps", "--quiet", "service").split()
        assert len(replicas) == 2 and len(scaled.compose("ps", "--quiet", "worker").split()) == 3
        assert [scaled.ranking(DESCRIPTION) for _ in range(6)] == [ranking] * 6
        answered = [searches_of(replica) for replica in replicas]
        assert all(answered), f"the proxy asks every replica: {answered}"

        before = inspect(replicas[0])["RestartCount"]
        scaled.kill(replicas[0])
        assert [scaled.ranking(DESCRIPTION) for _ in range(6)] == [ranking] * 6
        wait_until(lambda: inspect(replicas[0])["RestartCount"] > before, "the replica is started again")
        wait_until(lambda: inspect(replicas[0])["State"]["Health"]["Status"] == "healthy", "it is healthy")
        assert scaled.ranking(DESCRIPTION) == ranking

        milvus = scaled.container("milvus")
        before = inspect(milvus)["RestartCount"]
        scaled.kill(milvus)
        wait_until(lambda: inspect(milvus)["RestartCount"] > before, "Milvus is started again")
        wait_until(lambda: scaled.answers_with(ranking, DESCRIPTION), "all replicas have found it again")
    finally:
        scaled.compose("down", "--remove-orphans")
        installed.up()


def searches_of(container: str) -> int:
    """How many searches a replica has answered, by its log."""
    log = attempt("docker", "logs", container)
    return len(re.findall(r'"route": "/api/v1/searches", "status": 201', log.stdout + log.stderr))


def test_the_bill_of_materials_names_what_is_in_the_image(installed: Installation, tmp_path: Path) -> None:
    build = {"PIP_FIND_LINKS": installed.env.get("PIP_FIND_LINKS", ""), **installed.env}
    run("make", "--silent", "sbom", f"SBOM={tmp_path}", "READY=", env=build, seconds=BUILD_SECONDS)
    bills = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("*.cdx.json")}
    assert set(bills) == {"python.cdx.json", "page.cdx.json", "system.cdx.json"}
    named = {name: {c["name"].lower() for c in bill["components"]} for name, bill in bills.items()}
    installed_there = "import importlib.metadata as m; print(*(d.name.lower() for d in m.distributions()))"
    held = set(installed.compose("exec", "-T", "worker", "python", "-c", installed_there).split())
    assert held - {"person-search"} <= named["python.cdx.json"]
    assert "react" in named["page.cdx.json"] and "vitest" not in named["page.cdx.json"]
    assert "libc6" in named["system.cdx.json"]
