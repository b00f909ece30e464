"""How the tables came to be, step by step: alembic revisions in versions/. indexer.database.migrate runs them."""
