"""Many prompts at once, over Ray Data actors."""

from pathlib import Path

import pyarrow as pa
import pytest

from configs.errors import DataError
from configs.load import load
from configs.settings import Settings
from pipelines.generation.batch import Writer, cut, encoded, generate
from pipelines.pairs.schema import MESSAGES
from tests.pipelines.generation import references

TEXTS = ["How are you?", "What helped you the last time?", "Hi", "You could start with one small thing " * 5, "Yes"]
REQUESTS = pa.schema([("request_id", pa.string()), ("prompt", MESSAGES)])


def settings(*overrides: str) -> Settings:
    return load("demo", ["generation.max_new_tokens=10", "evaluation.batch_size=2", "evaluation.actors=2", *overrides])


def requests(texts: list[str]) -> pa.Table:
    rows = [{"request_id": f"r{i}", "prompt": [{"role": "user", "content": text}]} for i, text in enumerate(texts)]
    return pa.Table.from_pylist(rows, schema=REQUESTS)


@pytest.mark.usefixtures("ray_cluster")
def test_greedy_text_is_that_of_generate_and_rows_keep_their_order(tiny_model: Path) -> None:
    answers = generate(requests(TEXTS), str(tiny_model), None, settings("generation.temperature=0"))
    assert answers["request_id"].to_pylist() == [f"r{i}" for i in range(len(TEXTS))]
    expected = [references.greedy(tiny_model, text, 10) for text in TEXTS]
    assert list(zip(answers["text"].to_pylist(), answers["new_tokens"].to_pylist(), strict=True)) == expected
    assert set(answers["finish_reason"].to_pylist()) <= {"stop", "length"}


def written(folder: Path, texts: list[str], *overrides: str, adapter: Path | None = None, order: int = 1) -> list[str]:
    """What one actor's code writes when the batches reach it in their order, or (-1) the other way round."""
    chosen = settings(*overrides)
    writer = Writer(str(folder), adapter, chosen)
    batches = cut(encoded(requests(texts), str(folder), chosen), chosen.evaluation.batch_size)
    rows = [row for batch in batches[::order] for row in writer(batch).to_pylist()]
    return [row["text"] for row in sorted(rows, key=lambda row: row["request_id"])]


def test_the_adapter_is_used(tiny_model: Path, tiny_adapter: Path) -> None:
    expected = [references.greedy(tiny_model, text, 10, tiny_adapter)[0] for text in TEXTS]
    assert written(tiny_model, TEXTS, "generation.temperature=0", adapter=tiny_adapter) == expected


def test_the_repetition_penalty_is_used(tiny_model: Path) -> None:
    expected = [references.greedy(tiny_model, text, 10, repetition_penalty=1.8)[0] for text in TEXTS]
    options = ["generation.temperature=0", "generation.repetition_penalty=1.8"]
    assert written(tiny_model, TEXTS, *options) == expected


def test_the_same_seed_gives_the_same_texts_whichever_actor_takes_a_batch(tiny_model: Path) -> None:
    hot = ["generation.temperature=2.0", "generation.top_p=1.0"]
    texts = written(tiny_model, TEXTS, *hot)
    assert written(tiny_model, TEXTS, *hot, order=-1) == texts
    assert written(tiny_model, TEXTS, *hot, "generation.seed=5") != texts
    assert written(tiny_model, TEXTS, "generation.temperature=0") != texts


def test_a_prompt_that_the_model_cannot_hold_is_told_apart_and_the_others_are_answered(tiny_model: Path) -> None:
    chosen = settings()
    writer = Writer(str(tiny_model), None, chosen)
    (batch,) = cut(encoded(requests(["Hi", "week " * 900]), str(tiny_model), chosen), 2)
    answers = {row["request_id"]: row for row in writer(batch).to_pylist()}
    assert answers["r1"] == {"request_id": "r1", "text": "", "finish_reason": "too_long", "new_tokens": 0}
    assert answers["r0"]["finish_reason"] in ("stop", "length")
    assert answers["r0"]["new_tokens"] > 0


def test_no_requests_give_no_answers(tiny_model: Path) -> None:
    assert generate(requests([]), str(tiny_model), None, settings()).num_rows == 0


def test_two_requests_of_one_id_are_refused(tiny_model: Path) -> None:
    twice = pa.concat_tables([requests(["Hi"]), requests(["Yes"])])
    with pytest.raises(DataError, match="request_id"):
        generate(twice, str(tiny_model), None, settings())


def test_batches_hold_prompts_of_similar_length_whatever_their_order() -> None:
    rows = [{"request_id": f"r{n}", "prompt_ids": [5] * n} for n in (3, 9, 1, 7, 5)]
    batches = [[len(ids) for ids in table["prompt_ids"].to_pylist()] for table in cut(rows, 2)]
    assert batches == [[9, 7], [5, 3], [1]]
    assert [table.to_pylist() for table in cut(rows[::-1], 2)] == [table.to_pylist() for table in cut(rows, 2)]
