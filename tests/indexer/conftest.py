from __future__ import annotations

from tests.postgres_fixtures import database, session

__all__ = ["database", "session"]
