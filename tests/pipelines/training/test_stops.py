"""What a whole run does with a row that makes its loss infinite, and with a storage that takes no checkpoint."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.settings import Settings
from configs.training import UploadSettings
from pipelines.training import build, checkpoint
from pipelines.training.loop import FAILURE, SUMMARY
from pipelines.training.plan import Plan
from pipelines.training.sampling import order_of
from pipelines.training.watch import STOPPED
from tests.pipelines.training import ranks
from tests.pipelines.training.conftest import Build, Inputs
from tests.pipelines.training.faults import may_mount, mounted


def plan_of(settings: Settings, inputs: Inputs, root: Path, stage: str) -> Plan:
    """Eight steps of two rows on one worker, a checkpoint after each."""
    own = getattr(settings.training, stage).model_copy(update={"max_steps": 8, "save_every": 1, "micro_batch": 2})
    changed = {stage: own, "workers": 1, "upload": UploadSettings(retries=1, backoff_s=0.01)}
    settings = settings.model_copy(update={"training": settings.training.model_copy(update=changed)})
    plan = build.plan_of(settings, inputs, root / "output", "gm", stage, "0" * 12)
    return replace(plan, storage=str(root / "storage" / plan.name))


def spoilt(reference: Path, row: int, copy: Path) -> Path:
    """The reference with an infinite log-probability in one training row."""
    shutil.copytree(reference, copy)
    (file,) = (copy / "train").glob("*.parquet")
    table = pq.read_table(file)
    at = table.schema.get_field_index("ref_chosen_logps")
    values = table.column(at).to_pylist()
    values[row] = math.inf
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type)), file)
    return copy


def test_a_row_that_makes_the_loss_infinite_stops_training_by_its_id_and_keeps_the_checkpoint_before(
    settings: Settings, dpo_inputs: Inputs, tmp_path: Path
) -> None:
    plan = plan_of(settings, dpo_inputs, tmp_path, "dpo1")
    (file,) = (Path(plan.tokens) / "train").glob("*.parquet")
    rows = pq.read_table(file).to_pylist()
    lengths = [row["length"] for row in rows]
    words = {"micro_batch": 2, "micro_batches": 1, "max_length": plan.training.max_length}
    order = list(order_of(plan.training.batching, lengths, plan.seed, **words))
    bad = order[7]  # the second row of the fourth step
    assert plan.reference is not None
    plan = replace(plan, reference=str(spoilt(Path(plan.reference), bad, tmp_path / "reference")))
    ranks.train(plan, workers=1)
    message = json.loads((Path(plan.output) / FAILURE).read_text())["message"]
    ids = ["/".join(rows[row][key] for key in ("post_id", "chosen_id", "rejected_id")) for row in order[6:8]]
    assert f"at step 4, on the rows {', '.join(ids)}; the checkpoint of step 3 stays" in message
    assert json.loads((Path(plan.storage) / STOPPED).read_text())["batches"] == [ids]
    newest = checkpoint.newest(Path(plan.storage))
    assert newest is not None and newest.marker.step == 3
    assert not (Path(plan.output) / SUMMARY).exists()


def test_a_storage_that_takes_no_checkpoint_costs_no_training(
    settings: Settings, base_model: Path, tokenised: Build, tmp_path: Path
) -> None:
    if not may_mount(tmp_path):
        pytest.skip("mounting a tmpfs needs root")
    with mounted(tmp_path / "storage", "size=64k"):
        plan = plan_of(settings, {"tokens": tokenised("sft"), "base": base_model}, tmp_path, "sft")
        ranks.train(plan, workers=1)
        assert checkpoint.newest(Path(plan.storage)) is None
    summary = json.loads((Path(plan.output) / SUMMARY).read_text())
    assert (summary["steps"], summary["checkpoints_skipped"]) == (8, 7)
    assert (Path(plan.output) / "adapter_model.safetensors").is_file()
