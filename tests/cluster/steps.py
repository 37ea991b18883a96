"""A small stage with the interface of the real ones: adds up the numbers in its inputs' files."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.errors import DataError
from configs.load import to_yaml
from configs.settings import Settings
from pipelines.manifest import Input, Manifest, fingerprints, writing

STAGE = "adds"


def depends(settings: Settings) -> dict[str, Any]:
    return {"seed": settings.seed}


def build(settings: Settings, inputs: Mapping[str, Input], output: Path) -> Manifest:
    with writing(
        output, stage=STAGE, settings=depends(settings), inputs=fingerprints(inputs), resolved=to_yaml(settings)
    ) as draft:
        numbers = [number(Path(str(value))) for value in inputs.values()]
        (draft.path / "number").write_text(str(sum(numbers) + settings.seed), encoding="ascii")
        if any(n < 0 for n in numbers):
            raise DataError("a number is below 0")
        draft.count("numbers", read=len(numbers), kept=len(numbers))
        draft.notes.append("sums")
        draft.figures["made_ns"] = time.time_ns()
    assert draft.manifest is not None
    return draft.manifest


def number(path: Path) -> int:
    return int((path / "number" if path.is_dir() else path).read_text(encoding="ascii"))
