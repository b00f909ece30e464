"""Generated requests by every role: nobody gets further than the role allows, and every answer is a documented one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from service.openapi import openapi_document
from service.principals import PERMISSIONS
from tests.fake_encoder import GridFiles
from tests.service import test_openapi  # noqa: F401  (says how bodies of other media types are sent)
from tests.service.accounts import EVERY_ROLE, key, user
from tests.service.conftest import Service, picture, running_service

CASES = 2_000  # in all, in the slow version
CASES_EACH = 1  # of a call and a role, in the ordinary one

document = openapi_document()
schema = schemathesis.openapi.from_dict(document)
CALLS = [(path, method) for path, calls in document["paths"].items() for method in calls]
CASES_EACH_SLOW = math.ceil(CASES / len(CALLS) / len(EVERY_ROLE))


def needed(path: str, method: str) -> set[str] | None:
    """One of which permissions a call needs; None: it answers everybody, or everybody who is signed in."""
    permissions = document["paths"][path][method.lower()].get("x-permissions")
    return None if permissions is None else set(permissions)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("guarded")
    limits = {"rate_limit": 0, "max_ingestion_bytes": 2**16}
    with running_service(folder, files=GridFiles(folder / "files"), auth="required", **limits) as service:
        user(service, "boss", "admin")
        service.http.headers["Authorization"] = f"Bearer {key(service, *EVERY_ROLE)[0]}"
        service.camera("north", "south")
        for seed in range(6):
            service.added(picture(seed), camera_id=("north", "south")[seed % 2])
        service.embed()
        yield service


@pytest.fixture(scope="module")
def keys(guarded: Service) -> dict[str, str]:
    """The role's key; the operator and the ingest key are for one camera."""
    scopes = {"operator": ["north"], "ingest": ["north"]}
    return {role: key(guarded, role, cameras=scopes.get(role))[0] for role in EVERY_ROLE}


def ask(case: schemathesis.Case[Any], service: Service, role: str, key: str) -> None:
    # What a schema cannot say (these bytes are no zip, this camera is unknown) may still be refused, as documented; and
    # who may not do something is told so before anybody looks at what they sent.
    response = case.call_and_validate(
        base_url=str(service.http.base_url),
        headers={"Authorization": f"Bearer {key}"},
        timeout=30,
        excluded_checks=[positive_data_acceptance, negative_data_rejection],
    )
    assert response.status_code < 500 or case.path in ("/readyz",)
    permissions = needed(case.path, case.method)
    if permissions is not None and permissions.isdisjoint(PERMISSIONS[role]):
        assert not 200 <= response.status_code < 300, f"{role}: {response.status_code}"


def generated(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize("role", EVERY_ROLE)
@schema.parametrize()
@generated(CASES_EACH)
def test_no_role_gets_further_than_it_may(
    case: schemathesis.Case[Any], guarded: Service, keys: dict[str, str], role: str
) -> None:
    ask(case, guarded, role, keys[role])


@pytest.mark.slow
@pytest.mark.parametrize("role", EVERY_ROLE)
@schema.parametrize()
@generated(CASES_EACH_SLOW)
def test_no_role_gets_further_than_it_may_in_two_thousand_cases(
    case: schemathesis.Case[Any], guarded: Service, keys: dict[str, str], role: str
) -> None:
    ask(case, guarded, role, keys[role])
