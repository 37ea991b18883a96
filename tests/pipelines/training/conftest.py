"""A tiny corpus, its rows, a tiny base and one SFT adapter, each made once for all training tests."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs import load, prompts
from configs.settings import Settings
from configs.training import MODELS
from pipelines.corpus.schema import THREAD
from pipelines.layout import Layout
from pipelines.manifest import writing
from pipelines.pairs.schema import PAIR, SFT
from pipelines.training import base, build, reference, scratch, tokens

SIZES = [
    "model.scratch.hidden_size=32",
    "model.scratch.intermediate_size=64",
    "model.scratch.layers=2",
    "model.scratch.heads=2",
    "model.scratch.kv_heads=1",
    "model.scratch.vocabulary=600",
    "training.lora.r=4",
    "training.log_every=1",
    *(f"training.{stage}.max_steps=2" for stage in ("base", "sft", "dpo1", "dpo2")),
    *(f"training.{stage}.micro_batch=2" for stage in ("base", "sft", "dpo1", "dpo2")),
]
SPLITS = {"train": 16, "validation": 4, "test": 4}
FEELINGS = ("tired", "lonely", "worried", "ashamed", "numb", "angry")
TOPICS = ("my exams", "my job", "my brother", "the move", "my sleep")
Build = Callable[..., Path]
Inputs = dict[str, Path]


def post(draw: random.Random) -> str:
    return f"I am {draw.choice(FEELINGS)} because of {draw.choice(TOPICS)} and do not know what to do."


def reply(draw: random.Random, kind: bool) -> str:
    warm = f"That sounds hard, being {draw.choice(FEELINGS)} makes sense. What weighs most about {draw.choice(TOPICS)}?"
    return warm if kind else f"Just get over {draw.choice(TOPICS)}, others have it worse."


def turn(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def row(number: int, split: str, model: str, draw: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """An SFT row and a pair on one post."""
    text, good, bad = post(draw), reply(draw, True), reply(draw, False)
    prompt = prompts.messages(model, text, bad if model == "im" else None)
    ids = {"post_id": f"p{number}", "split": split}
    sft = {"prompt": prompt, "completion": turn(good), "comment_id": f"g{number}", "original_id": f"b{number}", **ids}
    pair = {"prompt": prompt, "chosen": turn(good), "rejected": turn(bad), "rule": "shp", **ids}
    return sft | {"score": 5, "created_utc": 1}, pair | {"chosen_id": f"g{number}", "rejected_id": f"b{number}"}


def write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = [{name: row.get(name) for name in schema.names} for row in rows]
    pq.write_table(pa.Table.from_pylist(whole, schema=schema), path)


def thread(number: int, split: str, draw: random.Random) -> dict[str, Any]:
    replies = [
        {"comment_id": f"c{number}-{k}", "author_hash": "a", "text": reply(draw, k > 0), "created_utc": k, "score": k}
        for k in range(3)
    ]
    values = {"title": "Hello", "text": post(draw), "created_utc": 1, "score": 3, "split": split, "comments": replies}
    return {"post_id": f"p{number}", "subreddit": "s", "author_hash": f"u{number}", **values}


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Two workers, ZeRO-2, two steps a stage, a model of some ten thousand weights."""
    return load("demo", [f"output={tmp_path_factory.mktemp('training')}", *SIZES])


@pytest.fixture(scope="session")
def layout(settings: Settings) -> Layout:
    """Where threads, SFT rows and pairs of the tiny corpus lie."""
    at = Layout(Path(settings.output))
    draw = random.Random(0)
    names = [split for split, n in SPLITS.items() for _ in range(n)]
    with writing(at.threads, stage="corpus", settings={}, inputs={}) as draft:
        write(draft.path / "part-0.parquet", [thread(k, split, draw) for k, split in enumerate(names)], THREAD)
    made = {(m, s): [row(k, s, m, draw) for k in range(n)] for m in MODELS for s, n in SPLITS.items()}
    for folder, which, schema in ((at.sft, 0, SFT), (at.pairs, 1, PAIR)):
        with writing(folder, stage=folder.name, settings={}, inputs={}) as draft:
            for (model, split), rows in made.items():
                write(draft.path / model / split / "part-0.parquet", [r[which] for r in rows], schema)
    return at


@pytest.fixture(scope="session")
def tokenizer(settings: Settings, layout: Layout) -> Any:
    """The tokenizer of a scratch base."""
    conversations = scratch.conversations(layout.threads, "train", settings.prompts, 0)
    return scratch.train_tokenizer(map(scratch.as_text, conversations), 600, 1024)


@pytest.fixture(scope="session")
def base_model(settings: Settings, layout: Layout, ray_cluster: None) -> Path:
    """The scratch base, trained for two steps."""
    base.build(settings, {"threads": layout.threads}, layout.base)
    return layout.base


@pytest.fixture(scope="session")
def tokenised(settings: Settings, layout: Layout, base_model: Path) -> Build:
    """Tokenises the rows of GM's stage once, and returns the folder."""

    def make(stage: Any) -> Path:
        folder = layout.tokens("gm", stage)
        if not folder.exists():
            rows = layout.sft if stage == "sft" else layout.pairs
            tokens.build(settings, {"rows": rows, "base": base_model}, folder, model="gm", stage=stage)
        return folder

    return make


@pytest.fixture(scope="session")
def sft_adapter(settings: Settings, layout: Layout, base_model: Path, tokenised: Build) -> Path:
    """GM's SFT adapter by ZeRO-2."""
    output = layout.adapter("gm", "sft")
    build.build(settings, {"tokens": tokenised("sft"), "base": base_model}, output, model="gm", stage="sft")
    return output


@pytest.fixture(scope="session")
def dpo_inputs(settings: Settings, layout: Layout, base_model: Path, sft_adapter: Path, tokenised: Build) -> Inputs:
    """What GM's DPO1 reads: its tokens, the base, the SFT adapter, and what that one thinks of the tokens."""
    read: Inputs = {"tokens": tokenised("dpo1"), "base": base_model, "start": sft_adapter}
    output = layout.reference("gm", "dpo1")
    reference.build(settings, read, output, model="gm", stage="dpo1")
    return {**read, "reference": output}
