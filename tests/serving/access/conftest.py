"""One service for the tests of a module, asked by keys."""

from collections.abc import Iterator

import pytest

from tests.serving.access.server import Server, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service with the playground switched on and no limits of callers."""
    unlimited = ["serving.access.requests_per_minute=null", "serving.access.concurrent=null"]
    with running(tmp_path_factory.mktemp("access"), "serving.playground=true", *unlimited) as found:
        yield found
