"""Opening the index: SQLite in WAL mode with synchronous FULL, at the newest schema."""

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import ConnectionPoolEntry

from node.errors import SettingsError

BUSY_TIMEOUT_S = 30.0
POOL_SIZE = 16
_MIGRATIONS = Path(__file__).parent / "migrations"
_STORE = "hilum_store"
_WRITING = "hilum_writing"
_writers: "weakref.WeakKeyDictionary[Engine, threading.Lock]" = weakref.WeakKeyDictionary()


def open_index(where: str | Path, *, store_directory: Path | None = None) -> Engine:
    """Open the index at `where` and bring its schema up to date.

    Args:
        where: Path of the SQLite file, made with mode 0600 where absent; or its sqlite:/// URL.
        store_directory: Directory of the instance store that `instance.path` is relative to; by default the
            directory `store` beside the SQLite file.

    Raises:
        SettingsError: `where` is no SQLite file, or its schema is newer than this version of Hilum.
    """
    file = _file_of(where)
    store = store_directory or file.parent / "store"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    engine = _engine_of(file, store)
    event.listen(engine, "connect", _prepare_sqlite)
    _migrate(engine)
    return engine


def open_existing_index(where: str | Path, *, store_directory: Path | None = None, is_read_only: bool = True) -> Engine:
    """Open an index that is there as it is, beside the node that owns it: nothing is made, migrated or locked.

    Args:
        where: As for `open_index`.
        store_directory: As for `open_index`.
        is_read_only: Refuse every write; else a write waits for its turn as everywhere.

    Raises:
        SettingsError: There is no index, it is no SQLite file, or its schema is not the one of this version.
    """
    file = _file_of(where)
    if not file.exists():
        raise SettingsError(f"there is no index at {file}. Remedy: start the node first.")
    engine = _engine_of(file, store_directory or file.parent / "store")
    event.listen(engine, "connect", _prepare_reader if is_read_only else _prepare_sqlite)
    try:
        _refuse_other_schema(engine)
    except SettingsError:
        engine.dispose()
        raise
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Give a connection inside one write transaction; commits at the end, rolls back on an error.

    SQLite takes one writer at a time and lets the others poll; within this process they queue here instead.
    """
    with _writers[engine], engine.connect().execution_options(**{_WRITING: True}) as connection, connection.begin():
        yield connection


def store_directory_of(engine: Engine) -> Path:
    """Return the directory that instance paths in this index are relative to."""
    return Path(engine.get_execution_options()[_STORE])


def _file_of(where: str | Path) -> Path:
    if "://" not in str(where):
        return Path(where).absolute()
    url = make_url(str(where))
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        raise SettingsError(f"the index at {url.render_as_string()} must be an SQLite file: sqlite:///path")
    return Path(url.database).absolute()


def _engine_of(file: Path, store: Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(file)),
        pool_size=POOL_SIZE,
        max_overflow=POOL_SIZE,
        execution_options={_STORE: str(store.absolute())},
    )
    event.listen(engine, "begin", _begin_sqlite)
    _writers[engine] = threading.Lock()
    return engine


def _prepare_reader(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
    connection.execute("PRAGMA query_only = ON")


def _prepare_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    # The driver must not begin transactions by itself: _begin_sqlite says when and how.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE: a transaction that reads and then writes cannot upgrade its lock beside another writer.
    mode = "IMMEDIATE" if connection.get_execution_options().get(_WRITING) else "DEFERRED"
    connection.exec_driver_sql(f"BEGIN {mode}")


def _migrate(engine: Engine) -> None:
    config = _migrations()
    try:
        with writing(engine) as connection:
            _refuse_unknown_schema(config, MigrationContext.configure(connection).get_current_revision())
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except DatabaseError as error:
        raise _unusable(engine, error) from error


def _migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _unusable(engine: Engine, error: DatabaseError) -> SettingsError:
    return SettingsError(f"the index {engine.url.database} is no usable SQLite file: {error.orig}")


def _refuse_other_schema(engine: Engine) -> None:
    config = _migrations()
    try:
        with engine.connect() as connection:
            revision = MigrationContext.configure(connection).get_current_revision()
    except DatabaseError as error:
        raise _unusable(engine, error) from error
    _refuse_unknown_schema(config, revision)
    newest = ScriptDirectory.from_config(config).get_current_head()
    if revision != newest:
        raise SettingsError(
            f"the index {engine.url.database} has schema {revision or 'none'}, this version of Hilum needs {newest}. "
            "Remedy: start the node of this version once, which upgrades it."
        )


def _refuse_unknown_schema(config: Config, revision: str | None) -> None:
    if revision is None:
        return
    try:
        ScriptDirectory.from_config(config).get_revision(revision)
    except CommandError as error:
        raise SettingsError(
            f"the index has schema {revision}, which this version of Hilum does not know; "
            "run the newer version that wrote it, or restore the backup made before the upgrade"
        ) from error
