"""The schema: made by anybody who comes, once; the same as the tables; up, down and up again."""

import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text

from configs.errors import DataError, UsageError
from pipelines.feedback.ratings import DIMENSIONS
from serving.feedback import migrate
from serving.feedback.database import Database
from serving.feedback.tables import METADATA


@pytest.fixture
def database(url: str) -> Database:
    return Database(url.replace("postgresql://", "postgresql+psycopg://"), 30)


def tables(database: Database) -> set[str]:
    with database.reading() as connection:
        return set(inspect(connection).get_table_names())


def test_an_empty_database_gets_exactly_the_tables_and_a_second_time_nothing(database: Database) -> None:
    assert migrate.upgrade(database) == "0001"
    assert migrate.upgrade(database) is None
    with database.reading() as connection:
        options = {"compare_type": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), METADATA) == []
        checks = {check["name"] for check in inspect(connection).get_check_constraints("ratings")}
    assert checks == {f"ck_ratings_{name}" for name in DIMENSIONS}


def test_down_drops_everything_and_up_makes_it_again(database: Database) -> None:
    migrate.upgrade(database)
    migrate.move(database, "base")
    assert (tables(database), migrate.step_of(database)) == ({"alembic_version"}, None)
    migrate.move(database, "0001")
    migrate.move(database, "head")
    assert (tables(database), migrate.step_of(database)) == (
        {"alembic_version", "answers", "ratings", "choices"},
        "0001",
    )


def test_replicas_that_start_at_once_migrate_once(url: str) -> None:
    done: list[object] = []
    start = threading.Barrier(6)

    def replica() -> None:
        own = Database(url.replace("postgresql://", "postgresql+psycopg://"), 30)
        start.wait()
        try:
            done.append(migrate.upgrade(own))
        except Exception as error:
            done.append(error)
        own.close()

    threads = [threading.Thread(target=replica) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, done)) == ["0001", *["None"] * 5]


def test_a_step_that_fails_halfway_leaves_the_schema_of_before(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic import op

    create, made = op.create_table, []

    def second_fails(name: str, *columns: object, **options: object) -> object:
        made.append(name)
        if len(made) == 2:
            raise DataError("the power is gone")
        return create(name, *columns, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(op, "create_table", second_fails)
    with pytest.raises(DataError, match="the power is gone"):
        migrate.upgrade(database)
    assert made == ["answers", "ratings"]
    assert "answers" not in tables(database)
    assert migrate.step_of(database) is None


def test_a_database_of_a_newer_version_is_left_alone_and_named(database: Database) -> None:
    migrate.upgrade(database)
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DataError, match=r"schema 9999 of a newer version.*--to 0001"):
        migrate.upgrade(database)
    with pytest.raises(DataError, match="9999, which only a newer llumi knows"):
        migrate.move(database, "base")
    assert "answers" in tables(database)


def test_a_step_that_is_none_is_refused_with_those_there_are(database: Database) -> None:
    with pytest.raises(UsageError, match="no schema 0007; there are: 0001, head, base"):
        migrate.move(database, "0007")
