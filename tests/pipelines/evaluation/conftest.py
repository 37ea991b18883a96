"""The small run that several tests evaluate."""

import pytest

from pipelines.manifest import Input
from tests.pipelines.evaluation.world import write_data
from tests.pipelines.generation.tiny import make


@pytest.fixture(scope="session")
def evaluated_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Input]:
    """Data inputs of evaluation, and the name of a base model."""
    root = tmp_path_factory.mktemp("run")
    return write_data(root) | {"base": str(make(root / "base", positions=2048))}
