"""Several adapters through one pool write what each would write through its own."""

from pathlib import Path

import pyarrow as pa
import pytest

from configs.settings import Settings
from pipelines.generation.batch import generate
from pipelines.generation.several import generate_many

SETTINGS = Settings.model_validate(
    {
        "output": "unused",
        "generation": {"max_new_tokens": 8, "seed": 4},
        "evaluation": {"batch_size": 2, "actors": 1},
    }
)


def requests(*posts: str) -> pa.Table:
    rows = [{"request_id": f"r{i}", "prompt": [{"role": "user", "content": post}]} for i, post in enumerate(posts)]
    return pa.Table.from_pylist(rows)


@pytest.mark.slow
def test_each_name_gets_the_texts_of_its_own_adapter(ray_cluster: None, tiny_model: Path, tiny_adapter: Path) -> None:
    asked = requests("I hear you", "that sounds hard", "a walk")
    base = str(tiny_model)
    found = generate_many({"plain": asked, "sft": asked}, base, {"plain": None, "sft": tiny_adapter}, SETTINGS)
    assert found["plain"].to_pylist() == generate(asked, base, None, SETTINGS).to_pylist()
    assert found["sft"].to_pylist() == generate(asked, base, tiny_adapter, SETTINGS).to_pylist()
    assert found["plain"]["text"].to_pylist() != found["sft"]["text"].to_pylist()


def test_nothing_asked_is_nothing_written(tiny_model: Path) -> None:
    found = generate_many({"plain": requests("x").slice(0, 0)}, str(tiny_model), {"plain": None}, SETTINGS)
    assert found["plain"].num_rows == 0
