"""Logs: one JSON object a line on stderr. Never query text, identities or image names.

`configure_logs` is called once by each process; the request line itself is written in `service.edge`. An exception is
logged by its kind and by where it happened. Its message stays out: messages quote values, PostgreSQL's most of all
("Key (external_id)=(...) already exists"), and nobody can tell beforehand which of them are names.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from traceback import FrameSummary, extract_tb
from typing import Any
from uuid import UUID

import psycopg
import structlog
from pydantic import ValidationError

from indexer.errors import GalleryError
from model.errors import ModelError

OURS = ("service", "indexer", "model")
FRAMES = 30  # of one exception, the innermost; a recursion that ran away has a thousand

Event = MutableMapping[str, Any]


def configure_logs(level: str = "info") -> None:
    """Send structlog and the standard library's loggers to stderr as JSON lines.

    `level` is for our own lines. Of other packages only warnings are written: what they say in detail, as the rows a
    statement returned or the address of a request, is nothing for a log.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_stack,
        _describe_exception,
        _one_line,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _drop_private,
                structlog.processors.JSONRenderer(ensure_ascii=False, default=_kind_of),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    chosen = logging.getLevelNamesMapping()[level.upper()]
    for name in OURS:
        logging.getLogger(name).setLevel(chosen)
    logging.getLogger("uvicorn").setLevel(max(chosen, logging.INFO))
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)  # it prints addresses; our own line does not


@contextmanager
def uncaught_logged() -> Iterator[None]:
    """Log the exceptions that end a thread or the process: Python would print them whole, past the log.

    Errors meant for the user pass through: whoever started the process shows their sentence.
    """
    log = structlog.get_logger("service.uncaught")

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit:
            log.critical("thread ended by an error", thread=args.thread and args.thread.name, exc_info=args.exc_value)

    before = threading.excepthook
    threading.excepthook = in_thread
    try:
        yield
    except (GalleryError, ModelError, ValidationError):
        raise
    except Exception as error:
        log.critical("process ended by an error", exc_info=error)
        raise SystemExit(1) from None
    finally:
        threading.excepthook = before


# --------------------------------------------------------------------------------------------------------- exceptions


def describe_exception(error: BaseException) -> str:
    """The exception and what caused it, innermost last: kinds, codes, files, lines and functions; no messages."""
    return "\n".join(_lines(error))


def _lines(error: BaseException | None) -> Iterator[str]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield ("caused by " if len(seen) > 1 else "") + _what(error)
        if error.__traceback__ is not None:
            for frame in extract_tb(error.__traceback__)[-FRAMES:]:
                yield f"  {_where(frame)}"
        if isinstance(error, BaseExceptionGroup):
            yield "  of " + ", ".join(_what(one) for one in error.exceptions)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _what(error: BaseException) -> str:
    """The kind of an exception, and of its message what can only come from a program."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(error, psycopg.Error):
        where = error.diag
        told = {"sqlstate": error.sqlstate, "table": where.table_name, "constraint": where.constraint_name}
        return " ".join([name, *(f"{label}={value}" for label, value in told.items() if value)])
    if isinstance(error, OSError) and error.strerror:  # not the name of the file
        return f"{name}: {error.strerror}"
    return name


def _where(frame: FrameSummary) -> str:
    parts = Path(frame.filename).parts
    return f"{'/'.join(parts[-3:])}:{frame.lineno} {frame.name}"


# --------------------------------------------------------------------------------------------------------- processors


def _describe_exception(_logger: Any, _method: str, event: Event) -> Event:
    found = event.pop("exc_info", None)
    if isinstance(found, tuple):
        found = found[1]
    elif found and not isinstance(found, BaseException):  # `log.exception`, or exc_info=True
        found = sys.exc_info()[1]
    if isinstance(found, BaseException):
        event["exception"] = describe_exception(found)
    return event


def _without_stack(_logger: Any, _method: str, event: Event) -> Event:
    event.pop("stack_info", None)
    return event


def _one_line(_logger: Any, _method: str, event: Event) -> Event:
    """What the libraries write on further lines are exceptions, with their messages."""
    event["event"] = str(event.get("event", "")).partition("\n")[0]
    return event


PRIVATE = ("text", "query", "identity", "external_id", "filename")


def _drop_private(_logger: Any, _method: str, event: Event) -> Event:
    """The last guard: whatever a line carries under these names never reaches the log."""
    for name in PRIVATE:
        event.pop(name, None)
    return event


def _kind_of(value: object) -> str:
    """For what JSON cannot write: an object of ours may print names of people."""
    return str(value) if isinstance(value, UUID) else f"<{type(value).__qualname__}>"
