"""Every prompt of a post shows the same examples: in rated pairs and held-out drafts as in training rows."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs import Settings
from configs.prompts import messages
from pipelines.evaluation.drafts import gm_tasks
from pipelines.feedback.build import build
from pipelines.manifest import writing
from pipelines.pairs.schema import PAIR
from pipelines.retrieval.examples import FOLDER, Finder, examples_for
from tests.pipelines.feedback.making import line, write_lines
from tests.pipelines.retrieval.making import index_of, settings_for, table, thread

THREADS = table(
    thread("a", "failed chemistry exam"),
    thread("b", "failed exam in physics"),
    thread("t", "failed exam and chemistry midterm", split="test"),
    thread("alone", "quantum zebra", split="test"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Threads, and the retrieval stage's output over them."""
    root = tmp_path_factory.mktemp("examples")
    with writing(root / "threads", stage="corpus", settings={}, inputs={}) as draft:
        pq.write_table(THREADS, draft.path / "part-0.parquet")
    with writing(root / "retrieval", stage="retrieval", settings={}, inputs={}) as draft:
        index_of(draft.path, THREADS, settings_for())
        (draft.path / FOLDER).mkdir()
        Finder(draft.path, settings_for())(pa.table({"file": [str(root / "threads" / "part-0.parquet")]}))
    return root


def test_a_rated_pair_shows_what_was_retrieved_for_its_post(folder: Path, tmp_path: Path) -> None:
    ratings = write_lines(tmp_path / "r.jsonl", [line("i", rater, post_id="a") for rater in ("r1", "r2", "r3")])
    inputs = {"threads": folder / "threads", "ratings": [ratings], "retrieval": folder / "retrieval"}
    build(Settings(output=str(tmp_path)), inputs, tmp_path / "out")
    (row,) = pq.read_table(tmp_path / "out" / "gm" / "train", schema=PAIR).to_pylist()
    (shown,) = examples_for(THREADS.slice(0, 1), folder / "retrieval")
    assert row["example_ids"] == shown.ids == ["c-b"]
    assert row["prompt"] == messages("gm", "failed chemistry exam", None, shown.examples)
    build(Settings(output=str(tmp_path)), {k: inputs[k] for k in ("threads", "ratings")}, tmp_path / "plain")
    (plain,) = pq.read_table(tmp_path / "plain" / "gm" / "train", schema=PAIR).to_pylist()
    assert plain["example_ids"] is None and plain["prompt"] == messages("gm", "failed chemistry exam")


def test_a_held_out_draft_is_asked_for_with_examples_of_the_training_split(folder: Path, tmp_path: Path) -> None:
    settings = Settings(output=str(tmp_path))
    test = THREADS.slice(2)
    prompts = {row["post_id"]: row["prompt"] for row in gm_tasks(settings, test, folder / "retrieval").to_pylist()}
    shown = dict(zip(("t", "alone"), examples_for(test, folder / "retrieval"), strict=True))
    assert set(shown["t"].ids or ()) == {"c-a", "c-b"} and shown["alone"].ids == []
    for post_id, text in (("t", "failed exam and chemistry midterm"), ("alone", "quantum zebra")):
        assert prompts[post_id] == messages("gm", text, None, shown[post_id].examples)
    assert gm_tasks(settings, test).to_pylist()[0]["prompt"] != prompts["t"]
