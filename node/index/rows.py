"""What all tables share: rows that may exist already, and times, which lie in the index as UTC without a zone."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert_missing(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> int:
    """Insert the rows whose key is not there yet, leave the others as they are; return how many were new."""
    if not rows:
        return 0
    if connection.dialect.name == "postgresql":
        return connection.execute(postgresql.insert(table).values(list(rows)).on_conflict_do_nothing()).rowcount
    return connection.execute(sqlite.insert(table).values(list(rows)).on_conflict_do_nothing()).rowcount


def as_row_time(moment: datetime) -> datetime:
    """Turn a time-zone aware time into what the tables hold: UTC without a zone."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def as_time(row_time: datetime) -> datetime:
    """Turn a time of a row into a time-zone aware one."""
    return row_time.replace(tzinfo=UTC)


def as_optional_time(row_time: datetime | None) -> datetime | None:
    """As `as_time`, for columns that may be empty."""
    return None if row_time is None else as_time(row_time)
