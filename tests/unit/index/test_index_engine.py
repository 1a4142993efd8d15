import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from node.errors import SettingsError
from node.index.engine import open_existing_index, open_index, store_directory_of, writing
from node.index.tables import schema


def test_migrated_schema_equals_the_tables(tmp_path: Path) -> None:
    engine = open_index(tmp_path / "index.sqlite")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema) == []
    engine.dispose()


def test_commits_survive_power_loss_by_pragma(tmp_path: Path) -> None:
    engine = open_index(tmp_path / "index.sqlite")
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
    engine.dispose()


def test_opening_twice_changes_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        engine = open_index(f"sqlite:///{tmp_path}/index.sqlite")
        assert store_directory_of(engine) == tmp_path / "store"
        engine.dispose()


def test_nobody_else_may_read_the_index(tmp_path: Path) -> None:
    engine = open_index(tmp_path / "deep" / "index.sqlite")
    assert stat.S_IMODE((tmp_path / "deep" / "index.sqlite").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "deep").stat().st_mode) == 0o700
    engine.dispose()


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    engine = open_index(tmp_path / "index.sqlite")
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(SettingsError, match="schema 9999"):
        open_index(tmp_path / "index.sqlite")


def set_revision(path: Path, revision: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))


def test_readers_take_no_lock_and_write_nothing(tmp_path: Path) -> None:
    owner = open_index(tmp_path / "index.sqlite")
    with writing(owner):
        reader = open_existing_index(tmp_path / "index.sqlite")
        with reader.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM study")).scalar() == 0
    with pytest.raises(OperationalError, match="readonly"), writing(reader) as connection:
        connection.execute(text("DELETE FROM study"))
    assert store_directory_of(reader) == tmp_path / "store"
    reader.dispose()
    owner.dispose()


def test_existing_index_can_be_written_where_asked(tmp_path: Path) -> None:
    open_index(tmp_path / "index.sqlite").dispose()
    engine = open_existing_index(tmp_path / "index.sqlite", is_read_only=False)
    with writing(engine) as connection:
        connection.execute(text("INSERT INTO study VALUES ('1.2', '2026-01-01', '2026-01-01', NULL)"))
    engine.dispose()


@pytest.mark.parametrize("is_read_only", [True, False])
@pytest.mark.parametrize(("revision", "said"), [("9999", "schema 9999"), ("0001", "Remedy: start the node")])
def test_existing_index_of_another_version_is_refused_and_stays(
    tmp_path: Path, revision: str, said: str, *, is_read_only: bool
) -> None:
    path = tmp_path / "index.sqlite"
    open_index(path).dispose()
    set_revision(path, revision)
    before = path.read_bytes()
    with pytest.raises(SettingsError, match=said):
        open_existing_index(path, is_read_only=is_read_only)
    assert path.read_bytes() == before


def test_absent_or_foreign_index_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="start the node first"):
        open_existing_index(tmp_path / "index.sqlite")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "index.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(SettingsError, match="no usable SQLite file"):
        open_existing_index(tmp_path / "index.sqlite")


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(SettingsError, match="no usable SQLite file"):
        open_index(tmp_path / "index.sqlite")


def test_other_databases_are_refused() -> None:
    with pytest.raises(SettingsError, match="must be an SQLite file"):
        open_index("postgresql://localhost/hilum")


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    engine = open_index(tmp_path / "index.sqlite")
    with pytest.raises(sqlite3.IntegrityError), writing(engine) as connection:  # noqa: PT012 - the raise is inside
        connection.execute(text("INSERT INTO study VALUES ('1.2', '2026-01-01', '2026-01-01', NULL)"))
        raise sqlite3.IntegrityError("made up")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM study")).scalar() == 0
    engine.dispose()
