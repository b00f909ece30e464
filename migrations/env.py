"""What alembic runs: the upgrade, in the transaction that indexer.database.migrate hands over."""

from __future__ import annotations

from alembic import context

from indexer.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
