"""Who may search now: so many at once, so many waiting in line, and nobody for longer than the deadline.

Waiting costs no thread, so that the rest of the service answers while searches queue up. A client that hangs up while
it waits leaves the line.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Request
from starlette.requests import ClientDisconnect

from indexer import deadlines
from service.context import current
from service.errors import Refusal


class Admission:
    """The places of searches. Used from the event loop alone, so that it needs no lock."""

    def __init__(self, slots: int, queue: int, seconds: float) -> None:
        self._slots, self._queue, self._seconds = slots, queue, seconds
        self._line: deque[asyncio.Future[None]] = deque()
        self.running = 0

    @property
    def waiting(self) -> int:
        return len(self._line)

    @asynccontextmanager
    async def admitted(self, request: Request) -> AsyncIterator[None]:
        """Wait for a place, then hold it; the deadline runs from the moment of asking.

        Raises Refusal (busy) when too many wait already, DeadlinePassed, and ClientDisconnect.
        """
        with deadlines.deadline(self._seconds):
            await self._enter(request)
            try:
                yield
            finally:
                self._leave()

    async def _enter(self, request: Request) -> None:
        if self.running < self._slots:
            self.running += 1
            return
        if len(self._line) >= self._queue:
            raise Refusal("busy", f"{self._queue} searches are waiting already. Try again in a moment.")
        place = asyncio.get_running_loop().create_future()
        hung_up = asyncio.ensure_future(_disconnected(request))
        self._line.append(place)
        try:
            both = (place, hung_up)
            await asyncio.wait(both, timeout=deadlines.remaining(), return_when=asyncio.FIRST_COMPLETED)
            if not place.done():
                deadlines.check()
                raise ClientDisconnect
        except BaseException:
            if place.done():  # in the very moment of giving up
                self._leave()
            else:
                self._line.remove(place)
            raise
        finally:
            hung_up.cancel()

    def _leave(self) -> None:
        """Hand the place to the first in line."""
        if self._line:
            self._line.popleft().set_result(None)
        else:
            self.running -= 1


async def _disconnected(request: Request) -> None:
    """Returns when the client has hung up. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def admit(request: Request) -> AsyncIterator[None]:
    async with current(request).admission.admitted(request):
        yield


# The parameter of a handler that searches. After the body among the parameters: who sends slowly keeps no place. Of the
# scope of the function: who reads slowly neither.
Admitted = Annotated[None, Depends(admit, scope="function")]
