"""A tiny model with a long context, and free ports."""

import json
from pathlib import Path

import pytest
import yaml

from configs.load import load
from configs.settings import Settings
from serving.app import ModelPaths
from serving.safety import guard
from tests.pipelines.generation.tiny import make

RULES = Path(guard.__file__).parent / "rules" / "guard.yaml"
GUARDS = [rule["id"] for rule in yaml.safe_load(RULES.read_text(encoding="utf-8"))["rules"]]
"""What the guard forbids, and a random model writes all the time."""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModelPaths:
    """GM and IM: the same random model."""
    folder = make(tmp_path_factory.mktemp("serving") / "model", positions=8192, endless=True)
    return ModelPaths(gm=str(folder), im=str(folder))


def settings_for(port: int, tmp_path: Path, *overrides: str) -> Settings:
    """The demo's settings with short answers, on ``port``."""
    return load(
        "demo",
        [
            f"output={tmp_path}",
            f"serving.port={port}",
            "generation.max_new_tokens=16",
            "serving.drain_s=1",
            "serving.auth=none",
            f"serving.safety.without={json.dumps(GUARDS)}",
            *overrides,
        ],
    )
