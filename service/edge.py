"""What every request passes on its way in and out: host and origin check, request id, headers, one log line.

Also the last catch: an error nobody expected becomes a 500 problem without internals, and its traceback a log entry.
"""

from __future__ import annotations

import time
import uuid
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import KINDS, problem
from service.metrics import ServiceMetrics, known_method

CLIENT_LEFT = 499  # for the log alone: nobody was there to answer
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

log = structlog.get_logger("service.request")


class Edge:
    """The outermost ASGI layer of the service."""

    def __init__(self, app: ASGIApp, allowed_hosts: frozenset[str], metrics: ServiceMetrics) -> None:
        self.app = app
        self.allowed_hosts = allowed_hosts
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        request = Request(scope, receive)
        started = time.perf_counter()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")  # rankings and pictures of people stay in no cache
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                refused = self.refuse(request)
                await (refused or self.app)(scope, receive, answer)
            except ClientDisconnect:
                status = status or CLIENT_LEFT
            except Exception:
                log.exception("unexpected error")
                if status:  # too late for a problem: let the server cut the connection
                    raise
                await problem(request, "internal", KINDS["internal"].example)(scope, receive, answer)
            finally:
                route: str | None = getattr(scope.get("route"), "path", None)
                seconds = time.perf_counter() - started
                self.metrics.request(route, scope["method"], status, seconds)
                log.info(
                    "request",
                    method=known_method(scope["method"]),
                    route=route,
                    status=status,
                    duration_ms=round(seconds * 1000, 1),
                )

    def refuse(self, request: Request) -> Response | None:
        """A page elsewhere may point its own name at this address, or post to it: neither gets through."""
        host = _hostname(Headers(scope=request.scope).get("host", ""))
        if host is None:
            return problem(request, "malformed", "The Host header is missing or malformed.")
        if host not in self.allowed_hosts:
            return problem(
                request,
                "wrong_host",
                f"This service does not answer for the host {host!r}; PERSON_SEARCH_ALLOWED_HOSTS can name it.",
            )
        origin = request.headers.get("origin", "")
        if request.method not in SAFE_METHODS and origin and origin.partition("://")[2] != request.headers["host"]:
            return problem(request, "cross_origin", "This request came from a page of another site, so it was refused.")
        return None


def _hostname(host: str) -> str | None:
    """`127.0.0.1:8000` -> `127.0.0.1`, `[::1]:8000` -> `::1`; None when it is no host at all."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
