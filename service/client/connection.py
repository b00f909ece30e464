"""One connection to a service: who asks, what happens when the answer is a no, when to ask again, how answers are read.

The calls themselves are in the other files of this package, by subject.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar
from urllib.parse import quote
from uuid import UUID

import httpx
from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from service.schemas import Problem, Readiness

Json = Mapping[str, Any]
Id = UUID | str
Model = TypeVar("Model", bound=BaseModel)

API = "/api/v1"
SHOW_A_KEY = "On the command line set PERSON_SEARCH_API_KEY or give --api-key-file FILE."
IDEMPOTENT = frozenset({"GET", "PUT", "DELETE"})
LATER = frozenset({429, 503})  # the statuses that mean: not done, ask again
PAUSE = 1.0  # seconds before asking again where the service does not say how long


class ServiceError(Exception):
    """The service refused, or did not answer. `str()` of it, and `sentence`, is what to tell the user.

    `status` is None where there was no answer, `problem` the RFC 9457 body where there is one; `code` is its code.
    """

    def __init__(self, sentence: str, status: int | None = None, problem: Problem | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status
        self.problem = problem
        self.code = None if problem is None else problem.code

    @classmethod
    def of(cls, response: httpx.Response) -> Self:
        """What an answer that is no success says."""
        status = response.status_code
        said = parsed(Problem, response) or parsed(Readiness, response)
        if said is None:
            url = str(response.url.copy_with(raw_path=b"/"))
            if response.is_redirect:
                sentence = f"{url} sends its callers elsewhere, which is not followed. Give its right address."
                return cls(sentence, status)
            return cls(f"{url} answered {status} and does not say why.", status)
        if isinstance(said, Readiness):
            return cls(" ".join(check.detail for check in said.checks if check.required and not check.ok), status)
        sentences = [said.detail, *(error.detail for error in said.errors[1:])]  # the first one is the detail
        if status == 401:
            sentences.append(SHOW_A_KEY)
        return cls(" ".join(sentences), status, said)


class Connection:
    """A pool of connections to the service at `url`. Close it, or use it as a context manager.

    It shows `api_key`, or the one in PERSON_SEARCH_API_KEY. A call that is safe to repeat and is told to come again
    (503 or 429) is repeated for up to `retry_seconds` in all; 0: never. Redirects are not followed, so that the key is
    shown to nobody else. `transport` replaces the network, for a Unix socket or a test.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        timeout: float = 60.0,
        *,
        api_key: str | None = None,
        retry_seconds: float = 5.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.retry_seconds = retry_seconds
        api_key = api_key or os.environ.get("PERSON_SEARCH_API_KEY")
        self._http = httpx.Client(
            base_url=self.url,
            timeout=timeout,
            headers={"Authorization": f"Bearer {api_key.strip()}"} if api_key else {},
            trust_env=False,
            follow_redirects=False,
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def request(
        self, method: str, path: str, *, retry: bool | None = None, stream: bool = False, **arguments: Any
    ) -> httpx.Response:
        """Send one request and give the answer, if it is a success. Raises ServiceError.

        `retry` says whether it may be repeated, else the method does. With `stream` the body is left to be read.
        """
        may_repeat = method in IDEMPOTENT if retry is None else retry
        end = time.monotonic() + (self.retry_seconds if may_repeat else 0.0)
        while True:
            try:
                response = self._http.send(self._http.build_request(method, path, **arguments), stream=stream)
                if response.is_success:
                    return response
                response.read()
                response.close()
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise ServiceError(
                    f"No answer from {self.url} ({type(error).__name__}). "
                    "Start the service with `person-search serve`, or give its address with --url."
                ) from error
            pause = pause_of(response)
            if response.status_code not in LATER or time.monotonic() + pause > end:
                raise ServiceError.of(response)
            time.sleep(pause)

    @contextmanager
    def _stream(self, path: str, **arguments: Any) -> Iterator[httpx.Response]:
        response = self.request("GET", path, stream=True, **arguments)
        try:
            yield response
        finally:
            response.close()

    def _download(self, path: str, file: BinaryIO) -> None:
        with self._stream(path, timeout=None) as response:
            try:
                for chunk in response.iter_bytes():
                    file.write(chunk)
            except httpx.HTTPError as error:
                raise ServiceError(f"The answer of {self.url} was cut off. Fetch it again.") from error

    def _ask(self, model: type[Model], method: str, path: str, body: Any = None, **arguments: Any) -> Model:
        """Send a request with `body` as JSON, if there is one, and read the answer as `model`."""
        if body is not None:
            arguments["json"] = plain(body)
        return self._read(model, self.request(method, path, **arguments))

    def _read(self, model: type[Model], response: httpx.Response, **more: Any) -> Model:
        """The answer as `model`, of which `more` fields are not in the body."""
        with self._understood():
            return model.model_validate({**response.json(), **more} if more else response.json())

    @contextmanager
    def _understood(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:  # no JSON, or other JSON than expected
            sentence = f"{self.url} answered what this client does not understand. Is it another version?"
            raise ServiceError(sentence) from error

    def _pages(self, model: type[Model], path: str, cursor: str, **parameters: Any) -> Iterator[Model]:
        """Every page of a list; `next_CURSOR` of one is the parameter `CURSOR` of the next."""
        after: Any = None
        while True:
            page = self._ask(model, "GET", path, params=given(**{**parameters, cursor: after}))
            yield page
            after = getattr(page, f"next_{cursor}")
            if after is None:
                return


def parsed(model: type[Model], response: httpx.Response) -> Model | None:
    try:
        return model.model_validate_json(response.content)
    except ValidationError:
        return None


def pause_of(response: httpx.Response) -> float:
    """Seconds until the service wants to be asked again."""
    said = response.headers.get("Retry-After", "")
    return max(0.1, float(said)) if said.isdecimal() else PAUSE


def at(*parts: object) -> str:
    """The path of a call. Ids may be of any characters: none of them ends the part of the path it stands for."""
    quoted = [quote(str(part), safe="") for part in parts]
    return "/".join([API, *(part.replace(".", "%2E") if not part.strip(".") else part for part in quoted)])


def plain(value: Any) -> Any:
    """A request model, or dicts and lists with models, ids and times in them, as JSON values. Unset fields stay out."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    return to_jsonable_python(value)


def given(**values: Any) -> dict[str, Any]:
    """Those that are not None, as JSON values."""
    return {name: plain(value) for name, value in values.items() if value is not None}
