"""``llumi export``: what leaves a run loads anywhere, is whole, tells what it is, and overwrites nothing else."""

import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from huggingface_hub import ModelCard
from moto.server import ThreadedMotoServer
from safetensors import safe_open
from safetensors.torch import save_file

from cluster.cli import main
from configs import load
from configs.errors import ExportError, UsageError
from configs.load import to_yaml
from pipelines.forgetting.trained import MARK
from pipelines.layout import Layout
from pipelines.manifest import read
from pipelines.training import delivery, vllm_rules
from tests.cluster import exported

LOAD = """
import importlib.util, json, sys
sys.path = [path for path in sys.path if path not in ("", {repository!r})]
assert not any(importlib.util.find_spec(name) for name in ("pipelines", "configs", "cluster"))
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

merged, adapter, base = sys.argv[1:]
tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (merged, adapter)]
turn = [{{"role": "user", "content": "I know nobody here."}}]
ids = [t.apply_chat_template(turn, add_generation_prompt=True, return_dict=False) for t in tokenizers]
assert ids[0] == ids[1] and tokenizers[0].pad_token is not None
whole = AutoModelForCausalLM.from_pretrained(merged).eval()
parts = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
with torch.no_grad():
    logits = [model(input_ids=torch.tensor([ids[0]])).logits for model in (whole, parts)]
torch.manual_seed(0)
answer = whole.generate(torch.tensor([ids[0]]), attention_mask=torch.ones(1, len(ids[0])), max_new_tokens=3)
config = whole.generation_config
print(json.dumps({{
    "difference": float((logits[0] - logits[1]).abs().max()), "new": answer.shape[1] - len(ids[0]),
    "temperature": config.temperature, "top_p": config.top_p, "max_new_tokens": config.max_new_tokens,
    "penalty": config.repetition_penalty, "eos": config.eos_token_id == tokenizers[0].eos_token_id,
    "pad": config.pad_token_id == tokenizers[0].pad_token_id,
}}))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, which no test changes."""
    root = tmp_path_factory.mktemp("world") / "run"
    settings = exported.build(root)
    (root.parent / "config.yaml").write_text(to_yaml(settings), encoding="utf-8")
    return root


@pytest.fixture
def run(world: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    root = tmp_path / "run"
    shutil.copytree(world, root)
    (tmp_path / "config.yaml").write_text(to_yaml(exported.settings_of(root)), encoding="utf-8")
    return root


Export = Callable[..., tuple[int, str, str]]


@pytest.fixture
def export(capsys: pytest.CaptureFixture[str]) -> Export:
    """Runs the command on a run: exit code, what it printed, what it said."""

    def call(root: Path, *arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["export", str(root.parent / "config.yaml"), *map(str, arguments)])
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return call


def texts(folder: Path) -> dict[str, str]:
    """Every file of an export that is text."""
    return {path.name: path.read_text() for path in folder.iterdir() if path.suffix != ".safetensors"}


def test_both_forms_load_with_plain_libraries_in_a_process_that_does_not_know_us(
    world: Path, tmp_path: Path, export: Export
) -> None:
    assert export(world, tmp_path / "whole", "--model", "gm")[:2] == (0, f"{tmp_path / 'whole'}\n")
    assert export(world, tmp_path / "adapter", "--model", "gm", "--adapter")[0] == 0
    code = LOAD.format(repository=str(Path(__file__).resolve().parents[2]))
    command = [sys.executable, "-P", "-c", code, str(tmp_path / "whole"), str(tmp_path / "adapter")]
    env = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [*command, str(Layout(world).base)], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("difference") < 1e-4
    assert 1 <= found.pop("new") <= 3
    sampling = {"temperature": 0.6, "top_p": 0.9, "max_new_tokens": 77, "penalty": 1.1}
    assert found == {**sampling, "eos": True, "pad": True}


def test_an_export_is_whole_verifiable_and_free_of_this_machine(world: Path, tmp_path: Path, export: Export) -> None:
    target = tmp_path / "gm"
    assert export(world, target, "--model", "gm", "--adapter")[0] == 0
    checked = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=target, capture_output=True)
    assert checked.returncode == 0
    assert len((target / "SHA256SUMS").read_text().splitlines()) == len(list(target.iterdir())) - 1
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "chat_template.jinja"} <= {
        *texts(target),
        "adapter_model.safetensors",
    }
    assert not {"settings.yaml", "manifest.json", "masking.html", "curves.json"} & set(texts(target))
    assert [name for name, text in texts(target).items() if str(world.parent) in text] == []
    assert "what somebody wrote" not in "".join(texts(target).values())
    assert texts(target)["prompt.md"] == (Path("configs/prompts/gm.md")).read_text()


def test_the_lineage_names_the_manifests_of_everything_it_was_made_from(
    world: Path, tmp_path: Path, export: Export
) -> None:
    export(world, tmp_path / "gm", "--model", "gm")
    at, told = Layout(world), json.loads((tmp_path / "gm" / "lineage.json").read_text())
    assert (told["model"], told["stage"], told["form"]) == ("gm", "dpo1", "merged")
    card = (tmp_path / "gm" / "README.md").read_text()
    behind = {
        "corpus": at.threads,
        "pairs": at.pairs,
        "tokens/gm/dpo1": at.tokens("gm", "dpo1"),
        "reference/gm/dpo1": at.reference("gm", "dpo1"),
        "train/gm/sft": at.adapter("gm", "sft"),
        "base": at.base,
    }
    for stage, folder in behind.items():
        made = read(folder)
        assert made is not None
        assert told["made_from"][stage]["key"] == made.key
        assert f"{stage}: manifest `{made.key}`, code `{made.code}`" in card
    assert told["not_there_any_more"] == []


def test_the_card_has_hugging_faces_metadata_and_the_figures_of_the_evaluation(
    run: Path, tmp_path: Path, export: Export
) -> None:
    export(run, tmp_path / "before", "--model", "gm", "--adapter")
    exported.evaluate(Layout(run))
    export(run, tmp_path / "after", "--model", "gm", "--adapter")
    before, after = (ModelCard.load(tmp_path / name / "README.md") for name in ("before", "after"))
    # Wilson's interval of 30 right of 40: (0.5981, 0.8581), computed by hand from its formula.
    assert "| 0.75 | 0.5981 to 0.8581 | 40 |" in before.text
    assert "| 0.71 | 0.62 to 0.79 | 90 | 95%, over posts |" in after.text
    assert "| 0.4 | 0.1 to 0.7 | 30 |" in after.text and "0.5981" not in after.text
    assert [r.metric_value for r in after.data.eval_results] == [0.71, 0.4]
    assert (after.data.library_name, after.data.pipeline_tag) == ("peft", "text-generation")
    assert "base_model" not in after.data.to_dict()
    assert exported.COMMUNITY in after.text and "2021-04-01 to 2021-06-30" in after.text
    assert "| pair rule | matched |" in after.text and "40 of 42 (left out: 2 too long)" in after.text
    assert "## Intended use" in after.text and "## Limits" in after.text
    assert "--max-lora-rank 8" in after.text


def test_an_evaluation_of_another_adapter_is_not_told(run: Path, tmp_path: Path, export: Export) -> None:
    at = Layout(run)
    exported.evaluate(at)
    exported.mark(at.adapter("gm", "dpo1"), trained="again")
    export(run, tmp_path / "gm", "--model", "gm", "--adapter")
    assert "0.5981 to 0.8581" in (tmp_path / "gm" / "README.md").read_text()


def test_the_layout_of_a_hugging_face_repository(world: Path, tmp_path: Path, export: Export) -> None:
    assert export(world, tmp_path / "gm", "--model", "gm", "--layout", "hub")[0] == 0
    assert {".gitattributes", "LICENSE", "README.md", "model.safetensors"} <= {
        path.name for path in (tmp_path / "gm").iterdir()
    }
    assert "*.safetensors filter=lfs" in (tmp_path / "gm" / ".gitattributes").read_text()
    assert "Its licence applies" in (tmp_path / "gm" / "LICENSE").read_text()


def test_the_same_again_changes_nothing_and_a_newer_one_takes_its_place(
    run: Path, tmp_path: Path, export: Export
) -> None:
    target = tmp_path / "out" / "gm"
    export(run, target, "--model", "gm")
    before = (target / "SHA256SUMS").stat().st_mtime_ns
    code, _, said = export(run, target, "--model", "gm")
    assert code == 0 and "there already" in said
    assert (target / "SHA256SUMS").stat().st_mtime_ns == before
    (target / "README.md").write_text("damaged")
    code, _, said = export(run, target, "--model", "gm")
    assert "written and verified" in said and "damaged" not in (target / "README.md").read_text()
    exported.evaluate(Layout(run))
    assert export(run, target, "--model", "gm")[0] == 0
    assert "0.62 to 0.79" in (target / "README.md").read_text()
    assert [path.name for path in target.parent.iterdir()] == ["gm"]


def test_nothing_else_is_overwritten(world: Path, tmp_path: Path, export: Export) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    code, _, said = export(world, mine, "--model", "gm")
    assert code == 2 and "holds 1 files that are no export" in said
    assert (mine / "thesis.txt").read_text() == "years of work"
    export(world, tmp_path / "gm", "--model", "gm")
    code, _, said = export(world, tmp_path / "gm", "--model", "gm", "--adapter")
    assert code == 2 and "holds another export (gm dpo1 merged)" in said
    code, _, said = export(world, mine / "thesis.txt", "--model", "gm")
    assert code == 2 and "is a file; give a folder" in said


def test_a_model_trained_on_forgotten_rows_stays_unless_told(run: Path, tmp_path: Path, export: Export) -> None:
    at = Layout(run)
    exported.mark(at.adapter("gm", "sft"), **{MARK: {"rows": 3}})
    exported.mark(at.model("gm"), **{MARK: {"rows": 3}})
    code, _, said = export(run, tmp_path / "gm", "--model", "gm")
    assert code == 2 and "trained on rows that were forgotten since (merge/gm)" in said
    assert not (tmp_path / "gm").exists()
    assert export(run, tmp_path / "gm", "--model", "gm", "--forgotten")[0] == 0
    assert json.loads((tmp_path / "gm" / "lineage.json").read_text())["trained_on_forgotten"] is True


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (
            ["--model", "gm", "--stage", "sft", "--merged"],
            "merged after dpo1, not after sft: give --stage sft --adapter",
        ),
        (["--model", "gm", "--stage", "dpo2"], "run `llumi train CONFIG --model gm --stage dpo2` first"),
        (["--model", "im"], "models/im is not complete: run `llumi run CONFIG --until models` first"),
        ([], "models/im is not complete"),
    ],
)
def test_what_is_not_there_is_named_with_the_command_that_makes_it(
    world: Path, tmp_path: Path, export: Export, arguments: list[str], named: str
) -> None:
    code, _, said = export(world, tmp_path / "gm", *arguments)
    assert (code, said.count("\n")) == (2, 1)
    assert named in said
    assert not (tmp_path / "gm").exists()


def test_a_model_merged_before_its_adapter_was_trained_again_stays(run: Path, tmp_path: Path, export: Export) -> None:
    exported.mark(Layout(run).adapter("gm", "dpo1"), trained="again")
    code, _, said = export(run, tmp_path / "gm", "--model", "gm")
    assert code == 2 and "was merged from another adapter than is there now" in said


def test_a_damaged_model_is_named(run: Path, tmp_path: Path, export: Export) -> None:
    weights = Layout(run).model("gm") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    code, _, said = export(run, tmp_path / "gm", "--model", "gm")
    assert code == 1 and "model.safetensors has" in said and "make it again" in said


def small_export(folder: Path, size: int = 10_000) -> dict[str, Path]:
    """Files as an export has them, two of them as large as ``size`` bytes."""
    files = {name: folder / name for name in ("lineage.json", "a.safetensors", "b.safetensors")}
    files["lineage.json"].write_text(json.dumps({"llumi_export": 1, "model": "gm", "form": "merged"}))
    for name in ("a", "b"):
        files[f"{name}.safetensors"].write_bytes(name.encode() * size)
    return files


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Files may not grow beyond a megabyte meanwhile, as where a quota ends."""
    files = small_export(tmp_path, 3_000_000)
    sums, target = delivery.hashes(files), tmp_path / "out" / "gm"
    heard, (soft, hard) = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(ExportError, match=rf"{target} cannot be written: \[Errno 27\] File too large"):
            delivery.deliver(files, sums, str(target))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, heard)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_changes_while_it_is_copied_is_not_left_there(tmp_path: Path) -> None:
    files = small_export(tmp_path)
    sums = delivery.hashes(files)
    files["a.safetensors"].write_bytes(b"b" * 10_000)
    with pytest.raises(ExportError, match=r"a\.safetensors was not read back as it was written"):
        delivery.deliver(files, sums, str(tmp_path / "out" / "gm"))
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_export_left_is_removed(world: Path, tmp_path: Path, export: Export) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = tmp_path / f".gm.partial-{os.uname().nodename}-{dead.pid}"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    assert export(world, tmp_path / "gm", "--model", "gm")[0] == 0
    assert not left.exists()


@pytest.fixture(scope="module")
def store() -> Iterator[tuple[str, Any]]:
    """Query that names a server that speaks S3, and a client of it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    words = {"region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
    s3 = boto3.client("s3", endpoint_url=f"http://{host}:{port}", **words)
    s3.create_bucket(Bucket="models")
    yield f"?endpoint_override={host}:{port}&scheme=http", s3
    server.stop()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment of a job would hold."""
    words = {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "REGION": "us-east-1"}
    for name, value in {**words, "EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)


def objects(s3: Any, prefix: str) -> dict[str, bytes]:
    """Objects below a prefix by name, without the markers of empty folders."""
    listed = s3.list_objects_v2(Bucket="models", Prefix=prefix).get("Contents", [])
    names = [one["Key"] for one in listed if not one["Key"].endswith("/")]
    return {name.removeprefix(prefix): s3.get_object(Bucket="models", Key=name)["Body"].read() for name in names}


def test_a_store_gets_the_same_files_and_the_marker_last(
    run: Path, tmp_path: Path, export: Export, store: tuple[str, Any], credentials: None
) -> None:
    query, s3 = store
    target = f"s3://models/llumi/gm{query}"
    assert export(run, target, "--model", "gm")[:2] == (0, f"{target}\n")
    export(run, tmp_path / "gm", "--model", "gm")
    assert objects(s3, "llumi/gm/") == {path.name: path.read_bytes() for path in (tmp_path / "gm").iterdir()}
    assert "there already" in export(run, target, "--model", "gm")[2]
    s3.put_object(Bucket="models", Key="llumi/gm/old.safetensors", Body=b"of an earlier export")
    exported.evaluate(Layout(run))
    assert export(run, target, "--model", "gm")[0] == 0
    assert "old.safetensors" not in objects(s3, "llumi/gm/")
    assert b"0.62 to 0.79" in objects(s3, "llumi/gm/")["README.md"]
    code, _, said = export(run, target, "--model", "gm", "--adapter")
    assert code == 2 and "holds another export" in said
    code, _, said = export(run, f"s3://nowhere/gm{query}", "--model", "gm")
    assert code == 1 and "s3://nowhere/gm" in said and "cannot be written" in said
    code, _, said = export(run, "hf://models/gm", "--model", "gm")
    assert code == 2 and "nothing is uploaded to a hub" in said


def test_an_upload_that_broke_off_has_no_marker_and_is_taken_up(
    tmp_path: Path, store: tuple[str, Any], credentials: None
) -> None:
    query, s3 = store
    files = small_export(tmp_path)
    sums, target = delivery.hashes(files), f"s3://models/broken{query}"
    files["b.safetensors"].rename(tmp_path / "gone")
    with pytest.raises(ExportError, match="cannot be written"):
        delivery.deliver(files, sums, target)
    assert set(objects(s3, "broken/")) == {"lineage.json", "a.safetensors"}
    (tmp_path / "gone").rename(files["b.safetensors"])
    assert delivery.deliver(files, sums, target).written
    assert "SHA256SUMS" in objects(s3, "broken/")
    s3.put_object(Bucket="models", Key="mine/thesis.txt", Body=b"years of work")
    with pytest.raises(UsageError, match="holds 1 files that are no export"):
        delivery.deliver(files, sums, f"s3://models/mine{query}")


def changed(folder: Path, **fields: Any) -> None:
    """Change an adapter's configuration, and its manifest with it."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    made = read(folder)
    assert made is not None
    made = made.model_copy(update={"files": made.files | {path.name: path.stat().st_size}})
    (folder / "manifest.json").write_text(made.model_dump_json())


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"r": 600}, "training.lora.r is 600, its largest rank is 512"),
        ({"bias": "all"}, "bias is all"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save holds lm_head"),
        ({"use_dora": True}, "use_dora is set"),
        ({"target_modules": ["q_proj", "lm_head"]}, "training.lora.targets names lm_head"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
    ],
)
def test_an_adapter_that_vllm_cannot_load_is_refused_by_name(
    run: Path, tmp_path: Path, export: Export, fields: dict[str, Any], named: str
) -> None:
    changed(Layout(run).adapter("gm", "dpo1"), **fields)
    code, _, said = export(run, tmp_path / "gm", "--model", "gm", "--adapter")
    assert code == 2 and named in said and "export it --merged" in said


def test_tensors_that_are_no_lora_factors_are_named(world: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(Layout(world).adapter("gm", "dpo1"), tmp_path / "adapter")
    assert vllm_rules.violations(folder) == []
    with safe_open(folder / "adapter_model.safetensors", "pt") as held:
        tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118 - no mapping
    tensors["base_model.model.lm_head.weight"] = next(iter(tensors.values())).clone()
    save_file(tensors, folder / "adapter_model.safetensors")
    assert vllm_rules.violations(folder) == [
        "1 tensors are no LoRA factors, the first is base_model.model.lm_head.weight"
    ]


@pytest.mark.parametrize(("rank", "told"), [(1, 1), (4, 8), (8, 8), (24, 32), (257, 320), (513, None)])
def test_the_rank_that_vllm_is_told_is_the_smallest_that_holds_it(rank: int, told: int | None) -> None:
    assert vllm_rules.max_rank({"r": rank}) == told


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed (extra gpu)")
def test_vllm_loads_both_forms(world: Path, tmp_path: Path, export: Export) -> None:
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    export(world, tmp_path / "whole", "--model", "gm")
    export(world, tmp_path / "adapter", "--model", "gm", "--adapter")
    greedy = SamplingParams(temperature=0.0, max_tokens=4)
    turn = [{"role": "user", "content": "I know nobody here."}]
    whole = LLM(str(tmp_path / "whole"), enforce_eager=True, max_model_len=256).chat(turn, greedy)
    parts = LLM(str(Layout(world).base), enable_lora=True, max_lora_rank=8, enforce_eager=True, max_model_len=256)
    adapted = parts.chat(turn, greedy, lora_request=LoRARequest("gm", 1, str(tmp_path / "adapter")))
    assert whole[0].outputs[0].token_ids == adapted[0].outputs[0].token_ids


def test_the_config_of_the_world_is_a_config(world: Path) -> None:
    assert yaml.safe_load((world.parent / "config.yaml").read_text())["output"] == str(world)
    assert load(world.parent / "config.yaml") == exported.settings_of(world)
