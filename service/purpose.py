"""Why somebody searches: what the policy of the service asks for, and whose cases may be named.

Only searches take a purpose. Looking at a full image is in the audit without one: it follows from a search.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from indexer import cases
from indexer.audit import Purpose
from indexer.errors import NotFound
from service.errors import Refusal
from service.principals import Principal
from service.settings import ServiceSettings


def check(settings: ServiceSettings, purpose: Purpose | None) -> Purpose | None:
    """The purpose to record with the act; None where the policy is `off`, or none was given and none is needed.

    Raises Refusal `purpose_required`. Whether a named case may be, `check_case` tells, in the transaction of the act.
    """
    if settings.purpose_policy == "off":
        return None
    given = purpose is not None and (purpose.case_id is not None or bool((purpose.reason or "").strip()))
    if settings.purpose_policy == "required" and not given:
        sentence = "Say why you search: name a case, give a reason, or both, in `purpose`."
        raise Refusal("purpose_required", sentence, "/purpose")
    return purpose if given else None


def check_case(session: Session, principal: Principal, purpose: Purpose | None) -> None:
    """A case that is named must be there, be open, and have the caller as a member.

    Raises Refusal `not_found`, not telling other people's cases from none, and `CaseClosed`.
    """
    if purpose is None or purpose.case_id is None:
        return
    try:
        cases.open_case(session, purpose.case_id, principal.actor)
    except NotFound as error:
        raise Refusal("not_found", f"{error} Leave the case out, or correct its id.", "/purpose/case_id") from error
