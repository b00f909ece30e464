"""The service with its index in Milvus: two replicas answer as the flat index does, and say when Milvus is away."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer import milvus as milvus_module
from tests.milvus_fixtures import MilvusServer, needs_milvus
from tests.postgres_fixtures import fresh_database
from tests.service.conftest import Json, Service, picture, problem, running_service, wait_until

pytestmark = [needs_milvus, pytest.mark.xdist_group("milvus")]

ASK = {"query": {"text": "a man in red"}, "limit": 50}
NORTH = {**ASK, "filter": {"camera_id": {"eq": "north"}}}


def ranking(service: Service, ask: Json) -> list[tuple[str, float]]:
    return [(result["image_id"], result["similarity"]) for result in service.found(ask)["results"]]


def index_check(service: Service) -> Json:
    (check,) = [check for check in service.http.get("/readyz").json()["checks"] if check["name"] == "index"]
    return dict(check)


def test_two_replicas_on_milvus_answer_as_the_flat_index_and_say_when_it_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_module, "CALL_SECONDS", 2.0)
    server = MilvusServer(tmp_path)
    server.start()
    of_milvus = {"index": "milvus", "milvus_uri": server.uri, "index_check_seconds": 0.2}
    try:
        with (
            fresh_database() as database,
            running_service(tmp_path / "flat", database=database) as flat,
            running_service(tmp_path / "data", database=database, **of_milvus) as one,
            running_service(tmp_path / "data", database=database, **of_milvus) as two,
        ):
            flat.camera("north", "south")
            ids = [flat.added(picture(seed), camera_id=("north", "south")[seed % 2]) for seed in range(20)]
            flat.embed()
            for ask in (ASK, NORTH):
                expected = ranking(flat, ask)
                assert len(expected) == (20 if ask is ASK else 10)
                assert ranking(one, ask) == ranking(two, ask) == expected
            assert two.found(ASK)["exact"] is True and index_check(one)["ok"] is True

            assert one.http.delete(f"/api/v1/images/{ids[0]}").status_code == 204
            for service in (one, two):
                assert ids[0] not in dict(ranking(service, ASK))
            later = flat.added(picture(99))
            flat.embed()
            for service in (two, one):
                assert later in dict(ranking(service, ASK))
            expected = ranking(flat, ASK)

            server.kill()
            for service in (one, two):
                refused = service.search(ASK)
                body = problem(refused)
                assert (refused.status_code, body["code"]) == (503, "index_unavailable")
                assert int(refused.headers["Retry-After"]) > 0 and "PERSON_SEARCH_MILVUS_URI" in body["detail"]
                check = index_check(service)
                assert check["ok"] is False and "Milvus" in check["detail"]
                assert service.http.get("/livez").status_code == 200
            assert ranking(flat, ASK) == expected
            while_away = flat.added(picture(100))
            flat.embed()

            server.start()
            for service in (one, two):
                wait_until(lambda one=service: one.search(ASK).status_code == 201, "Milvus answers again")
                assert ranking(service, ASK) == ranking(flat, ASK)
                assert while_away in dict(ranking(service, ASK))
                assert service.http.get("/readyz").status_code == 200
    finally:
        server.kill()
