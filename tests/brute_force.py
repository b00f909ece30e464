"""What a search must answer, in plain Python: filters read image by image, rankings sorted by hand.

An image is a dict of what is known about it; what is not known is absent or None.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from datetime import datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

Json = dict[str, Any]
COMPARE = {"lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge}


def passes(image: Mapping[str, Any], wanted: Json) -> bool:
    """The filter of a request, by its documentation."""
    clauses = comparisons({field: operators for field, operators in wanted.items() if field != "any"})
    either = [one for clause in wanted.get("any", []) for one in comparisons(clause)]
    return all(holds(image, *one) for one in clauses) and (not either or any(holds(image, *one) for one in either))


def comparisons(clause: Json) -> list[tuple[str, str, Any]]:
    found = []
    for field, operators in clause.items():
        if field == "time_of_day":
            found.append((field, "within", operators))
        elif field == "attributes":
            found += [(f"attributes.{name}", op, value) for name, ops in operators.items() for op, value in ops.items()]
        else:
            found += [(field, op, value) for op, value in operators.items()]
    return found


def holds(image: Mapping[str, Any], field: str, op: str, wanted: Any) -> bool:
    value = image.get(field)
    if field.startswith("attributes."):
        value = told_apart(image["attributes"].get(field.removeprefix("attributes.")))
        if op in ("eq", "ne"):
            wanted = told_apart(wanted)
        elif op in ("in", "not_in"):
            wanted = [told_apart(one) for one in wanted]
    if field in ("captured_at", "created_at") and op != "exists":
        wanted = datetime.fromisoformat(wanted)
    match op:
        case "within":
            return image.get("captured_at") is not None and shown_within(image["captured_at"], wanted)
        case "exists":
            return (value is not None) == bool(wanted)
        case "eq":
            return bool(value == wanted)
        case "ne":
            return bool(value != wanted)
        case "in":
            return value in wanted
        case "not_in":
            return value not in wanted
        case "any":
            return any(tag in wanted for tag in value or ())
        case "all":
            return all(tag in (value or ()) for tag in wanted)
        case "none":
            return not any(tag in wanted for tag in value or ())
    return value is not None and bool(COMPARE[op](value, wanted))


def told_apart(value: Any) -> Any:
    """As JSON does it: in Python, 1 and True are the same."""
    return value if value is None else (isinstance(value, bool), value)


def shown_within(moment: datetime, span: Json) -> bool:
    shown = moment.astimezone(ZoneInfo(span["tz"])).time()
    since, until = time.fromisoformat(span["gte"]), time.fromisoformat(span["lt"])
    return since <= shown < until if since < until else shown >= since or shown < until


def ranked(
    images: Mapping[str, Mapping[str, Any]], vectors: Mapping[str, NDArray[np.float32]], query: NDArray[np.float32]
) -> list[tuple[str, float]]:
    """Ids of the images and their similarities, best first."""
    similar = {id: sum(float(a) * float(b) for a, b in zip(vectors[id], query, strict=True)) for id in images}
    return sorted(similar.items(), key=lambda pair: -pair[1])


def grouped(ranking: Sequence[tuple[str, float]], key: Mapping[str, Any]) -> list[list[str]]:
    """Ids by group, the groups by their first; an id whose key is None stands alone."""
    groups: list[tuple[Any, list[str]]] = []
    for id, _ in ranking:
        for name, members in groups:
            if key[id] is not None and name == key[id]:
                members.append(id)
                break
        else:
            groups.append((key[id], [id]))
    return [members for _, members in groups]
