"""The command line, in process, against a real service where a command needs one."""

from __future__ import annotations

import csv
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import text

from indexer import worker
from indexer.database import schema_is_current
from model.sheets import GAP, MARGIN, RESULT_CELL
from service import cli
from service.client import Client, ServiceError
from tests.helpers import make_tiny_checkpoint, make_toy_dataset
from tests.postgres_fixtures import fresh_database
from tests.service.conftest import Service, picture, pixels, running_service, zipped

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `person-search ARGUMENTS`; gives exit status, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["person-search", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a worker beside it, as on a real machine."""
    with running_service(tmp_path_factory.mktemp("cli")) as service:
        stop = threading.Event()
        store = service.context.store
        arguments = (service.database, store, service.encoder, service.settings, stop)
        thread = threading.Thread(target=worker.run, args=arguments, daemon=True)
        thread.start()
        yield service
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def url(service: Service) -> str:
    return str(service.http.base_url)


def test_a_folder_without_metadata_goes_in_and_is_found(worked: Service, run: Run, tmp_path: Path) -> None:
    (tmp_path / "day1").mkdir()
    for n in range(3):
        (tmp_path / "day1" / f"{n}.png").write_bytes(picture(100 + n))
    (tmp_path / "notes.txt").write_text("not an image")
    status, out, _ = run("ingest", tmp_path, "--url", url(worked), "--camera", "yard", "--register-cameras")
    assert status == 0, out
    assert "3 indexed" in out

    pixels(101).save(tmp_path / "query.png")
    status, out, _ = run(
        "search", "--image", tmp_path / "query.png", "--url", url(worked), "--camera", "yard", "--json"
    )
    assert status == 0
    first = json.loads(out)["results"][0]["image"]
    assert (first["external_id"], first["camera_id"]) == ("day1/1.png", "yard")


def test_rejected_rows_are_shown_and_written(worked: Service, run: Run, tmp_path: Path) -> None:
    archive = tmp_path / "gallery.zip"
    lines = [{"file": "good.png"}, {"file": "bad.png"}, {"file": "naive.png", "captured_at": "2026-09-01T18:00:00"}]
    files = {"good.png": picture(200), "bad.png": b"no image", "naive.png": picture(201)}
    archive.write_bytes(zipped(files, lines))
    status, out, _ = run("ingest", archive, "--url", url(worked))
    assert status == 1
    assert "bad.png" in out
    assert "naive.png" in out

    table = tmp_path / "rejected.csv"
    status, _, _ = run("ingest", archive, "--url", url(worked), "--rejected", table)
    assert status == 1
    with table.open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"bad.png", "naive.png"}
    assert rows["bad.png"]["code"] == "unreadable_image"
    assert "zone" in rows["naive.png"]["reason"]


def test_search_prints_a_table_and_the_warnings(worked: Service, run: Run) -> None:
    worked.added(picture(300))
    status, out, _ = run("search", "a man with a zorblax", "--url", url(worked), "--limit", "1")
    assert status == 0
    assert "similarity" in out
    assert "zorblax" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["search"], "Give a description"),
        (["search", "--image", "absent.png"], "There is no image file at absent.png"),
        (["search", "x", "--url", "http://127.0.0.1:9"], "person-search serve"),
        (["ingest", "absent.zip", "--url", "http://127.0.0.1:9"], "neither a zip, a tar, a manifest nor a folder"),
        (["train", "nothing"], "There is no recipe 'nothing'"),
        (["train", "axm_net_tiny", "--set", "epochs"], "NAME=VALUE"),
        (["evaluate", "absent.safetensors"], "data/test is not a folder"),
        (["checkpoint", "show", "absent.safetensors"], "absent.safetensors"),
        (["synth", "huge", "--out", "x"], "There is no set 'huge'"),
    ],
)
def test_a_mistake_is_one_sentence(run: Run, arguments: list[str], sentence: str) -> None:
    status, _, err = run(*arguments)
    assert status == 1
    assert sentence in " ".join(err.split())


def test_limits_of_the_service_reach_the_user(worked: Service, run: Run) -> None:
    status, _, err = run("search", "a man", "--limit", "1000000000", "--url", url(worked))
    assert status == 1
    assert "200" in err


def test_an_empty_folder_has_nothing_to_send(run: Run, tmp_path: Path) -> None:
    status, _, err = run("ingest", tmp_path)
    assert status == 1
    assert "holds no images" in " ".join(err.split())


def test_config_show_hides_secrets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSON_SEARCH_DATABASE_URL", "postgresql://somebody:hunter2@db/x")
    status, out, _ = run("config", "show")
    assert status == 0
    assert "PERSON_SEARCH_PORT=8000" in out
    assert "hunter2" not in out


def test_migrate_brings_an_empty_database_up_to_date_and_ends(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with fresh_database("template0") as database:
        monkeypatch.setenv("PERSON_SEARCH_DATABASE_URL", database.url)
        for _ in range(2):  # the second time there is nothing to do
            status, out, _ = run("migrate")
            assert (status, schema_is_current(database.engine)) == (0, True)
        with database.engine.connect() as connection:
            head = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        assert f"schema {head}," in out


def test_an_unknown_setting_stops_the_start_with_its_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSON_SEARCH_PROT", "8001")
    status, _, err = run("worker")
    assert status == 1
    assert "PERSON_SEARCH_PROT" in err
    assert "PERSON_SEARCH_PORT" in err


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_what_cannot_be_opened_is_one_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"not a checkpoint")
    monkeypatch.setenv("PERSON_SEARCH_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PERSON_SEARCH_CHECKPOINT", str(foreign))
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        status, _, err = run(command)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert status == 1
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "foreign.safetensors" in last


def test_a_service_without_authentication_stays_at_home(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSON_SEARCH_HOST", "0.0.0.0")
    monkeypatch.setenv("PERSON_SEARCH_AUTH", "open")
    status, _, err = run("config", "show")
    assert status == 1
    assert err.startswith("error: The service would listen on 0.0.0.0")


def test_a_setting_of_the_wrong_kind_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSON_SEARCH_PORT", "many")
    status, _, err = run("config", "show")
    assert status == 1
    assert "PERSON_SEARCH_PORT: Input should be a valid integer" in " ".join(err.split())


def test_checkpoint_show_tells_what_is_in_the_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    identifier = make_tiny_checkpoint(path)
    status, out, _ = run("checkpoint", "show", path)
    assert status == 0
    assert json.loads(out)["id"] == identifier


def test_train_and_evaluate(run: Run, tmp_path: Path) -> None:
    make_toy_dataset(tmp_path / "toy")
    settings = ["--set", "stages.0.epochs=1", "--set", "stages.1.epochs=1"]
    status, out, err = run("train", "axm_net_tiny", "--root", tmp_path / "toy", "--out", tmp_path / "run", *settings)
    assert status == 0, err
    best = tmp_path / "run" / "best.safetensors"
    assert best.exists()
    result = tmp_path / "result.json"
    sheet = tmp_path / "sheet.png"
    drawing = ["--sheet", sheet, "--sheet-queries", "2"]
    status, out, _ = run("evaluate", best, "--root", tmp_path / "toy", "--json", result, *drawing)
    assert status == 0
    with Image.open(sheet) as picture_of_results:
        assert picture_of_results.format == "PNG"
        assert picture_of_results.height > 2 * RESULT_CELL[1]
    assert "Rank-1" in out
    assert json.loads(result.read_text())["text_to_image"]["queries"] > 0

    cameras = ["--cameras", "cam0,cam1", "--away", tmp_path / "toy", "--away-cameras", "cam2"]
    status, out, _ = run("evaluate", best, "--root", tmp_path / "toy", "--json", result, *cameras)
    assert status == 0
    assert "kept" in out and json.loads(result.read_text())["away"]["data"]["images"] == 6
    status, _, err = run("evaluate", best, "--root", tmp_path / "toy", *cameras, "--shifts", "2")
    assert status == 1
    assert "--away compares two sets" in " ".join(err.split())

    status, _, err = run("train", "axm_net_tiny", "--root", tmp_path / "toy", "--out", tmp_path / "run")
    assert status == 1
    assert "already holds a run" in " ".join(err.split())


def test_synth_draws_a_contact_sheet_of_its_own_set(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("scipy", reason="the [synth] extra is not installed")

    def generate(spec: object, out: Path, *_: object, **__: object) -> Path:
        """Stands in for the renderer, which needs a graphics library: two people of this set, one of another."""
        rows = [{"id": pid, "file_path": f"{pid}.png", "camera": 36, "view": "front"} for pid in (7500, 7501, 6000)]
        (out / "imgs").mkdir(parents=True)
        for row in rows[:2]:
            pixels(int(str(row["id"]))).save(out / "imgs" / str(row["file_path"]))
        (out / "reid_raw.json").write_text(json.dumps(rows))
        return out / "reid_raw.json"

    monkeypatch.setattr("model.synth.generate.generate", generate)
    status, out, err = run("synth", "tiny", "--out", tmp_path / "tiny", "--sheet", tmp_path / "sheet.png")
    assert status == 0, err
    assert "sheet.png" in out.replace("\n", "")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 2 * 84 + GAP + 2 * MARGIN  # two images, not three


def test_recipes_are_listed(run: Run) -> None:
    status, out, _ = run("train", "list")
    assert status == 0
    assert "axm_net_cuhk_pedes" in out


def test_the_client_reads_images(worked: Service) -> None:
    data = picture(400)
    image = worked.added(data)
    with Client(url(worked)) as client:
        assert client.content(image) == data
        with pytest.raises(ServiceError) as refused:
            client.content("0199a1b2-7c3d-7e4f-8a5b-6c7d8e9f0a1b")
    assert refused.value.status == 404
