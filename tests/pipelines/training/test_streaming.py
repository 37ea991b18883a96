"""Streamed rows are those of memory-mapped ones, in the order in which each worker asks for them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from safetensors.torch import load_file
from torch.utils.data import BatchSampler

from configs import load
from configs.errors import TrainingError
from configs.settings import Settings
from pipelines.training import build, curves
from pipelines.training.plan import Plan
from pipelines.training.rows import open_rows
from pipelines.training.streaming import STEP, Feed, StreamedRows
from pipelines.training.tokens import DPO_TOKENS, PAIR_KEYS, REFERENCE_COLUMNS, SFT_TOKENS
from tests.pipelines.training.conftest import Build

FILES, ROWS, GROUP = 3, 37, 10
SIZES = {"window": 24, "chunk": 6}
MICRO, MICRO_BATCHES = 2, 4


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Pairs and their log-probabilities in several files of several row groups, five and a half epochs of steps."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    draw = np.random.default_rng(0)
    for number in range(FILES):
        ids = {name: [f"{name}{number}-{row}" for row in range(ROWS)] for name in PAIR_KEYS}
        lists = {
            name: [draw.integers(3, 99, draw.integers(1, 30)).tolist() for _ in range(ROWS)]
            for name in ("prompt_ids", "chosen_ids", "rejected_ids")
        }
        lengths = [len(lists["prompt_ids"][row]) + len(lists["chosen_ids"][row]) for row in range(ROWS)]
        tokens = pa.table({**lists, "length": lengths, **ids, "margin": [1.0] * ROWS}, schema=DPO_TOKENS)
        logps = {name: pa.array(draw.normal(size=ROWS), pa.float32()) for name in REFERENCE_COLUMNS}
        for folder, table in (("tokens", tokens), ("reference", pa.table({**ids, **logps}))):
            path = tmp_path / folder / "train" / f"part-{number}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, path, row_group_size=GROUP if folder == "tokens" else 16)
    settings = load("demo", ["training.dpo1.accumulation=2", f"training.dpo1.micro_batch={MICRO}"])
    return Plan(
        name="streamed",
        task="dpo",
        tokens=str(tmp_path / "tokens"),
        reference=str(tmp_path / "reference"),
        base="none",
        revision=None,
        start=None,
        output=str(tmp_path),
        storage=str(tmp_path / "storage"),
        attention="sdpa",
        stage=settings.training.dpo1.model_copy(update={"epochs": 2.5}),
        training=settings.training,
        seed=5,
    )


def stream(feed: Feed, worker: int, workers: int, first: int = 0) -> Iterator[pa.Table]:
    """One worker's micro-batches, as Ray Data would hand them out."""
    tables = (part for window in feed.windows(first) for part in feed.sent(window, worker, workers))
    for table in tables:
        yield from (table.slice(at, MICRO) for at in range(0, table.num_rows, MICRO))


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("resumed", [0, 20])
def test_each_worker_gets_the_very_rows_that_its_sampler_asks_for(plan: Plan, workers: int, resumed: int) -> None:
    mapped = open_rows(plan)["train"]
    feed = Feed.of(plan, **SIZES)
    steps, accumulation = feed.order.steps, MICRO_BATCHES // workers
    assert feed.order.windows == 5 and feed.last == -(-5 * steps // 2)
    for worker in range(workers):
        rows = StreamedRows(
            lambda w=worker: stream(feed, w, workers, max(0, resumed - 3)), len(mapped), lambda: resumed
        )
        for step in range(resumed, feed.last):
            epoch, at = divmod(step, steps)
            if at == 0 or step == resumed:
                feed.order.set_epoch(epoch)
                asked = list(BatchSamplerShard(BatchSampler(feed.order, MICRO, False), workers, worker))
            for positions in asked[at * accumulation : (at + 1) * accumulation]:
                assert rows.__getitems__(positions) == [mapped[position] for position in positions]


def test_rows_that_nobody_asked_for_stop_training(plan: Plan) -> None:
    rows = StreamedRows(lambda: stream(Feed.of(plan, **SIZES), 0, 1), FILES * ROWS, lambda: 0)
    with pytest.raises(TrainingError, match=r"goes on with \[\d+, \d+\] and not with \[110, 0\]"):
        rows.__getitems__([110, 0])


def test_a_stream_is_read_from_the_window_of_its_first_step_on_and_to_the_last(plan: Plan) -> None:
    feed = Feed.of(plan, **SIZES)
    first = feed.order.steps + 5
    windows = list(feed.windows(first))
    sent = [table[STEP].to_pylist() for window in windows for table in feed.sent(window, 0, 1)]
    assert sent[0][0] <= first <= sent[0][-1] and sent[-1][0] < feed.last <= sent[-1][-1] + 1
    assert {window["epoch"] for window in windows} == {1, 2}
    capped = replace(plan, stage=plan.stage.model_copy(update={"max_steps": 3}))
    assert {window["window"] for window in Feed.of(capped, **SIZES).windows(0)} == {0, 1}


def test_log_probabilities_of_other_rows_are_refused(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "reference" / "train" / "part-1.parquet"
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.take(pa.array(range(ROWS)[::-1])), path)
    feed = Feed.of(plan, **SIZES)
    with pytest.raises(TrainingError, match="are not those of the rows in"):
        list(stream(feed, 0, 1))


def test_only_what_is_small_comes_to_the_disk(plan: Plan) -> None:
    streamed = replace(plan, training=plan.training.model_copy(update={"ingest": "stream"}))
    rows = open_rows(streamed)["train"]
    assert set(rows.column_names) == {*PAIR_KEYS, *REFERENCE_COLUMNS, "length", "margin", "row"}
    assert len(rows) == FILES * ROWS and rows["row"][-1] == FILES * ROWS - 1


def test_ray_data_keeps_the_order(plan: Plan, ray_cluster: None) -> None:
    """Several windows are read at once, yet come one after the other."""
    feed = Feed.of(replace(plan, stage=plan.stage.model_copy(update={"epochs": 1})), **SIZES)
    found: list[dict[str, Any]] = []
    for batch in feed.dataset(1, 2, 0).iterator().iter_batches(batch_size=MICRO, batch_format="pyarrow"):
        found += batch.to_pylist()
    assert found == [row for batch in stream(feed, 1, 2) for row in batch.to_pylist()]


def test_rows_of_sft_are_streamed_with_their_labels(tmp_path: Path, plan: Plan) -> None:
    rows = [{"input_ids": [1, row], "labels": [-100, row], "length": 2, "post_id": "p"} for row in range(12)]
    path = tmp_path / "sft" / "train" / "part-0.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SFT_TOKENS), path)
    feed = Feed.of(replace(plan, tokens=str(tmp_path / "sft"), reference=None, task="sft"))
    batch = next(stream(feed, 0, 1)).to_pylist()[0]
    assert batch["labels"] == [-100, batch["row"]] and batch["input_ids"] == [1, batch["row"]]


@pytest.mark.slow
def test_a_streamed_run_trains_the_very_weights_of_a_memory_mapped_one(
    settings: Settings, sft_adapter: Path, base_model: Path, tokenised: Build, tmp_path: Path
) -> None:
    """Two workers of Ray Train; restarts under streaming are tested in ``test_resume.py``."""
    training = settings.training.model_copy(update={"ingest": "stream"})
    streamed = settings.model_copy(update={"training": training, "output": str(tmp_path)})
    inputs = {"tokens": tokenised("sft"), "base": base_model}
    build.build(streamed, inputs, tmp_path / "sft", model="gm", stage="sft")
    one, other = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path / "sft", sft_adapter))
    assert one.keys() == other.keys() and all(torch.equal(weight, other[name]) for name, weight in one.items())
    losses = [[p["loss"] for p in curves.load(folder) if "loss" in p] for folder in (tmp_path / "sft", sft_adapter)]
    assert losses[0] == losses[1] and len(losses[0]) == 2
