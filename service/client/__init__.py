"""A typed client for the service: what the command line, the demo, the tests and other programs speak through.

One method a job. A request is a model of the `*_schemas` modules or a dict like it, an answer is the model the API
documents; lists that have pages are iterators over all of them. Whatever goes wrong is a ServiceError.
"""

from __future__ import annotations

from service.client.access import Access
from service.client.cases import Cases
from service.client.connection import Json, ServiceError
from service.client.governing import Governing
from service.client.images import Images, SeenImage
from service.client.ingesting import Ingesting
from service.client.operations import Operations
from service.client.searching import Searching

__all__ = ["Client", "Json", "SeenImage", "ServiceError"]


class Client(Searching, Images, Ingesting, Cases, Governing, Access, Operations):
    """All calls of one service; see Connection for what it is made with. The calls are in the files by subject."""
