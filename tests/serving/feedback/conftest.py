"""Both databases, for real, and stores on them."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from configs.store import StoreSettings
from serving.feedback.crypt import add_key
from serving.feedback.store import FeedbackStore
from tests.serving.feedback.postgres import Postgres, binaries


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """One PostgreSQL for all tests, a database for each."""
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    server = Postgres(programs)
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store' / 'feedback.db'}"
    server: Postgres = request.getfixturevalue("server")
    return server.create(f"test_{uuid4().hex}")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A file with one key."""
    add_key(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def opening(key_file: Path) -> Iterator[Callable[..., FeedbackStore]]:
    """Opens stores on any database; texts are kept unless said otherwise."""
    stores: list[FeedbackStore] = []

    def of(**changes: object) -> FeedbackStore:
        # A machine that is busy must not turn a wait into a failure.
        usual = {"keep_text": True, "key_file": str(key_file), "wait_s": 10, "timeout_s": 10}
        settings = StoreSettings.model_validate(usual | changes).resolved("unused")
        store = FeedbackStore.of(settings)
        assert store is not None
        stores.append(store)
        return store

    yield of
    for store in stores:
        store.close()


@pytest.fixture
def make(opening: Callable[..., FeedbackStore], url: str) -> Callable[..., FeedbackStore]:
    """Opens stores on the one database, of either kind."""
    return partial(opening, url=url)


@pytest.fixture
def store(make: Callable[..., FeedbackStore]) -> FeedbackStore:
    """One store."""
    return make()
