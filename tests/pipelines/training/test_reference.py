"""The stored log-probabilities are those that TRL would compute, and no others are trained with."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch
import trl
from datasets import Dataset
from datasets.table import InMemoryTable
from peft import PeftModel
from safetensors.torch import load_file, save_file
from trl import DPOConfig

from configs.errors import StageOrderError, TrainingError
from configs.load import to_yaml
from configs.settings import Settings
from pipelines.generation.logprobs import batches, completion_logps, logps_of_many
from pipelines.manifest import read, writing
from pipelines.training import build, reference
from pipelines.training.rows import cache_folder, open_rows
from pipelines.training.tokens import DPO_TOKENS, PAIR_KEYS, REFERENCE_COLUMNS
from pipelines.training.weights import load_model, load_tokenizer, weights_hash
from tests.pipelines.training.conftest import Inputs

NAMES = ("prompt", "chosen", "rejected")
DRIVER = """
import sys
from pathlib import Path
import ray
from configs import load
from pipelines.training import reference
address, config, output, *paths = sys.argv[1:]
ray.init(address=address, log_to_driver=False)
inputs = dict(zip(("tokens", "base", "start"), map(Path, paths)))
reference.build(load(config), inputs, Path(output), model="gm", stage="dpo1")
"""


def table(folder: Path, split: str = "train") -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted((folder / split).glob("*.parquet"))])


class Stock(trl.DPOTrainer):
    """TRL's own way to the columns, only told that the rows are tokens already."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


def by_trl(tokens: Path, base: Path, adapter: Path, output: Path) -> np.ndarray:
    """Both log-probabilities of each training pair, by TRL's precomputation in padded batches of three pairs."""
    rows = Dataset(InMemoryTable(table(tokens).select([f"{name}_ids" for name in NAMES])))
    trainer = Stock(
        model=PeftModel.from_pretrained(load_model(str(base)), str(adapter), is_trainable=True),
        args=DPOConfig(
            output_dir=str(output),
            precompute_ref_log_probs=True,
            precompute_ref_batch_size=3,
            use_cpu=True,
            bf16=False,
            report_to="none",
            max_length=None,
            gradient_checkpointing=False,
        ),
        train_dataset=rows,
        processing_class=load_tokenizer(str(base)),
    )
    return np.stack([np.array(trainer.train_dataset[name]) for name in REFERENCE_COLUMNS], axis=1)


def with_dropout(adapter: Path, folder: Path) -> Path:
    """The same adapter, half of whose inputs are dropped while it is trained."""
    shutil.copytree(adapter, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_dropout": 0.5}))
    return folder


def referees() -> list[psutil.Process]:
    """The actors of this session's Ray that hold a reference."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # some end while they are looked at
            found += [process] if "Referee" in " ".join(process.cmdline()) else []
    return found


@pytest.mark.slow
def test_an_actor_that_is_killed_is_replaced_and_the_numbers_stay_the_same(
    settings: Settings, dpo_inputs: Inputs, tmp_path: Path
) -> None:
    inputs = {name: dpo_inputs[name] for name in ("tokens", "base", "start")}
    with ThreadPoolExecutor(1) as beside:
        done = beside.submit(reference.build, settings, inputs, tmp_path / "reference", model="gm", stage="dpo1")
        while not (there := referees()):
            assert not done.done(), "the pass ended before it could be disturbed"
            time.sleep(0.02)
        os.kill(there[0].pid, signal.SIGKILL)
        done.result(timeout=120)
    assert table(tmp_path / "reference").equals(table(dpo_inputs["reference"]))


@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_nothing_half_written(
    settings: Settings, dpo_inputs: Inputs, tmp_path: Path
) -> None:
    (tmp_path / "settings.yaml").write_text(to_yaml(settings))
    words = [ray.get_runtime_context().gcs_address, str(tmp_path / "settings.yaml"), str(tmp_path / "reference")]
    words += [str(dpo_inputs[name]) for name in ("tokens", "base", "start")]
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, *words])
    while not list(tmp_path.glob(".reference.partial-*")):
        assert driver.poll() is None, "the pass ended before it could be disturbed"
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert not (tmp_path / "reference").exists()
    inputs = {name: dpo_inputs[name] for name in ("tokens", "base", "start")}
    reference.build(settings, inputs, tmp_path / "reference", model="gm", stage="dpo1")
    assert table(tmp_path / "reference").equals(table(dpo_inputs["reference"]))


def ragged(folder: Path, vocabulary: int) -> Path:
    """Tokens of eleven pairs whose prompts and replies all have other lengths, two pairs of one prompt among them."""
    draw = random.Random(3)
    rows = [
        {f"{name}_ids": [draw.randrange(vocabulary) for _ in range(draw.randint(1, 40))] for name in NAMES}
        | {key: f"{key}{number}" for key in PAIR_KEYS}
        for number in range(11)
    ]
    rows[4]["prompt_ids"], rows[7]["chosen_ids"] = rows[9]["prompt_ids"], rows[9]["rejected_ids"]
    (folder / "train").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=DPO_TOKENS), folder / "train" / "part-0.parquet")
    return folder


def test_the_numbers_are_trl_s_own_with_padding_in_its_batches(
    settings: Settings, base_model: Path, sft_adapter: Path, tmp_path: Path
) -> None:
    """Compared a token, as float32 holds a sum of hundreds of nats no finer than 3e-5."""
    tokens = ragged(tmp_path / "tokens", vocabulary=300)
    loud = tmp_path / "loud"
    shutil.copytree(sft_adapter, loud)
    weights = load_file(loud / "adapter_model.safetensors")
    save_file({name: w + 0.1 for name, w in weights.items()}, loud / "adapter_model.safetensors")
    referee = reference.Referee(tokens, str(base_model), loud, settings)
    done = [referee(item) for item in reference.items(tokens, pairs=6)]
    ours = np.concatenate([np.stack([piece["chosen"], piece["rejected"]], axis=1) for piece in done])
    theirs = by_trl(tokens, base_model, loud, tmp_path)
    rows = table(tokens).to_pylist()
    lengths = np.array([[len(row["chosen_ids"]), len(row["rejected_ids"])] for row in rows])
    assert np.abs((ours - theirs) / lengths).max() < 1e-5
    assert np.abs(ours / theirs - 1).max() < 1e-5
    base = load_model(str(base_model)).eval()
    without = completion_logps(base, [(row["prompt_ids"], row["chosen_ids"]) for row in rows])
    assert np.abs(ours[:, 0] - without).min() > 1e-2, "the adapter takes no part"


def test_dropout_takes_no_part_in_the_reference(
    settings: Settings, dpo_inputs: Inputs, sft_adapter: Path, tmp_path: Path
) -> None:
    read_by = {name: dpo_inputs[name] for name in ("tokens", "base")}
    start = with_dropout(sft_adapter, tmp_path / "dropout")
    reference.build(settings, {**read_by, "start": start}, tmp_path / "reference", model="gm", stage="dpo1")
    assert table(tmp_path / "reference").equals(table(dpo_inputs["reference"]))


def test_each_row_lies_beside_its_tokens_and_none_is_lost(dpo_inputs: Inputs) -> None:
    made = read(dpo_inputs["reference"])
    assert made is not None
    for split in ("train", "validation"):
        rows, tokens = table(dpo_inputs["reference"], split), table(dpo_inputs["tokens"], split)
        assert rows.select(list(PAIR_KEYS)).equals(tokens.select(list(PAIR_KEYS)))
        assert made.rows[split].read == made.rows[split].kept == tokens.num_rows > 0
        assert all(value < 0 for name in REFERENCE_COLUMNS for value in rows[name].to_pylist())
    assert 0 <= made.figures["train_chosen_likelier"] <= 1


def tokens_file(path: Path, rows: int, group: int) -> None:
    ids = [[1] * 3] * rows
    columns = {"prompt_ids": ids, "chosen_ids": ids, "rejected_ids": ids, "length": [6] * rows}
    names = {key: [f"{key}{row}" for row in range(rows)] for key in PAIR_KEYS} | {"margin": [1.0] * rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**columns, **names}).select(DPO_TOKENS.names).cast(DPO_TOKENS), path, row_group_size=group)


def test_every_row_of_every_file_is_in_exactly_one_piece_of_work(tmp_path: Path) -> None:
    tokens_file(tmp_path / "train" / "b.parquet", rows=25, group=10)
    tokens_file(tmp_path / "train" / "a.parquet", rows=0, group=10)
    tokens_file(tmp_path / "validation" / "a.parquet", rows=4, group=10)
    work = list(reference.items(tmp_path, pairs=4))
    assert max(item["rows"] for item in work) == 4
    covered = [
        (item["split"], item["file"], 10 * item["group"] + item["start"] + k)
        for item in work
        for k in range(item["rows"])
    ]
    expected = [("train", "b.parquet", k) for k in range(25)] + [("validation", "a.parquet", k) for k in range(4)]
    assert covered == expected


def test_a_file_without_rows_stays_one(tmp_path: Path) -> None:
    tokens_file(tmp_path / "tokens.parquet", rows=0, group=10)
    assert reference.write(tmp_path / "tokens.parquet", tmp_path / "train" / "tokens.parquet", {}) == 0
    assert pq.read_table(tmp_path / "train" / "tokens.parquet").schema.equals(reference.REFERENCE)


def test_a_reference_without_finite_numbers_is_refused_by_row_and_leaves_nothing(
    settings: Settings, dpo_inputs: Inputs, sft_adapter: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(sft_adapter, tmp_path / "broken")
    weights = load_file(broken / "adapter_model.safetensors")
    save_file({name: torch.full_like(w, math.nan) for name, w in weights.items()}, broken / "adapter_model.safetensors")
    inputs = {"tokens": dpo_inputs["tokens"], "base": dpo_inputs["base"], "start": broken}
    with pytest.raises(TrainingError, match=r"no finite log-probability, the first is \{'post_id': 'p0'"):
        reference.build(settings, inputs, tmp_path / "reference", model="gm", stage="dpo1")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def refused(settings: Settings, inputs: Inputs, why: str) -> None:
    with pytest.raises(StageOrderError, match=why) as error:
        build.build(settings, inputs, inputs["tokens"].parent / "never", model="gm", stage="dpo1")
    assert "llumi train CONFIG --model gm --stage dpo1" in str(error.value)


def test_training_refuses_a_reference_that_is_missing_or_not_complete(
    settings: Settings, dpo_inputs: Inputs, tmp_path: Path
) -> None:
    refused(settings, {name: path for name, path in dpo_inputs.items() if name != "reference"}, "needs its reference")
    refused(settings, {**dpo_inputs, "reference": tmp_path}, "is not complete")


def test_training_refuses_a_reference_of_another_adapter_other_rows_or_another_precision(
    settings: Settings, dpo_inputs: Inputs, sft_adapter: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    with writing(again, stage="train/gm/sft", settings={"other": 1}, inputs={}) as draft:
        shutil.copytree(sft_adapter, draft.path, dirs_exist_ok=True)
    refused(settings, {**dpo_inputs, "start": again}, r"\(start changed")
    with writing(tmp_path / "tokens", stage="tokens/gm/dpo1", settings={"other": 1}, inputs={}) as draft:
        shutil.copytree(dpo_inputs["tokens"], draft.path, dirs_exist_ok=True)
    refused(settings, {**dpo_inputs, "tokens": tmp_path / "tokens"}, r"\(tokens changed")
    coarse = settings.model_copy(update={"training": settings.training.model_copy(update={"bf16": True})})
    refused(coarse, dpo_inputs, r"\(bf16 changed")


def test_weights_replaced_in_their_folder_make_a_reference_stale(
    settings: Settings, dpo_inputs: Inputs, tmp_path: Path
) -> None:
    """Manifests and names stay as they were: only the weights say it."""
    start = shutil.copytree(dpo_inputs["start"], tmp_path / "start")
    before = weights_hash(str(dpo_inputs["base"]), None, start)
    assert before == weights_hash(str(dpo_inputs["base"]), None, dpo_inputs["start"])
    weights = load_file(start / "adapter_model.safetensors")
    name = sorted(weights)[-1]
    save_file({**weights, name: weights[name] * 1.001}, start / "adapter_model.safetensors")
    assert weights_hash(str(dpo_inputs["base"]), None, start) != before
    refused(settings, {**dpo_inputs, "start": start}, r"\(weights changed")


def test_workers_refuse_log_probabilities_that_lie_beside_other_rows(
    settings: Settings, dpo_inputs: Inputs, tmp_path: Path
) -> None:
    plan = build.plan_of(settings, dpo_inputs, tmp_path, "gm", "dpo1", tmp_path.name)
    moved = shutil.copytree(dpo_inputs["reference"], tmp_path / "moved")
    file = next((moved / "train").glob("*.parquet"))
    rows = pq.read_table(file)
    pq.write_table(rows.take([1, 0, *range(2, rows.num_rows)]), file)
    try:
        assert {*REFERENCE_COLUMNS} <= {*open_rows(plan)["train"].column_names}
        with pytest.raises(TrainingError, match="of train are not those of the rows"):
            open_rows(replace(plan, reference=str(moved), name=f"{plan.name}-moved"))
    finally:
        for name in (plan.name, f"{plan.name}-moved"):
            shutil.rmtree(cache_folder(replace(plan, name=name)), ignore_errors=True)


def test_equal_rows_are_run_once_and_come_back_in_their_places(base_model: Path) -> None:
    model = load_model(str(base_model)).eval()
    rows = [([1, 5, 6, 7] * 5, [9, 2]), ([1, 8], [4, 4, 2]), ([1, 5, 6, 7] * 5, [3, 2]), ([1, 8], [4, 4, 2])]
    seen: list[int] = []
    handle = model.get_output_embeddings().register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    found = logps_of_many(model, rows, 44)
    handle.remove()
    assert sum(seen) == 2 + 2 + 3
    assert found == pytest.approx([completion_logps(model, [row])[0] for row in rows], abs=1e-5)
    assert found[1] == found[3]


def test_batches_keep_within_their_tokens_unless_one_row_alone_does_not() -> None:
    rows = [([0] * prompt, [0] * completion) for prompt, completion in ((30, 5), (8, 2), (8, 1), (3, 3), (3, 1))]
    cut = list(batches(rows, 20))
    assert [row for batch in cut for row in batch] == rows
    assert [len(batch) for batch in cut] == [1, 2, 2]
