"""Alembic migrations of the index, run by `open_index`; there is no alembic.ini."""
