"""A run small enough to evaluate in seconds: five test posts, their pairs, and a random model with adapters."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.prompts import messages, whole_post
from configs.settings import Settings
from pipelines.corpus.schema import THREAD
from pipelines.manifest import Input, writing
from pipelines.pairs.exposure_model import FILE, Curve, Exposure
from pipelines.pairs.schema import PAIR, SFT

HOSTILE = "<script>alert('post')</script> & <b>bold</b>"
"""Stands in every post, so that a report that forgets to escape is caught."""
POSTS = [f"t{i}" for i in range(5)]
REPLIES = ("Same here, what helped you?", "You could start small, one walk today.", "Get over it, others manage.")
QUALITY = (2.0, 1.0, -2.0)
SCORES = (8, 4, 2)


def settings(output: Path, **changes: Any) -> Settings:
    """Settings of a run with few resamples and short texts."""
    values: dict[str, Any] = {
        "output": str(output),
        "sample": {"threads": 10},
        "pairs": {"rule": "shp"},
        "training": {"max_length": 2048},
        "generation": {"max_new_tokens": 6},
        "evaluation": {"posts": 4, "resamples": 200, "examples": 2, "actors": 1, "batch_size": 8},
    }
    return Settings.model_validate(values | changes)


def thread(post: str, split: str = "test") -> dict[str, Any]:
    """A row of THREAD: three replies, the later the better liked."""
    comments = [
        {"comment_id": f"{post}c{i}", "author_hash": "a", "text": text, "created_utc": 300 - i, "score": SCORES[i]}
        for i, text in enumerate(REPLIES)
    ]
    return {
        "post_id": post,
        "subreddit": "QuietHarbor",
        "author_hash": "p",
        "title": f"Title of {post}",
        "text": HOSTILE,
        "created_utc": 100,
        "score": 5,
        "split": split,
        "comments": sorted(comments, key=lambda comment: comment["created_utc"]),
    }


def turn(text: str) -> list[dict[str, str]]:
    """An assistant's turn."""
    return [{"role": "assistant", "content": text}]


def pair(post: str, model: str, rule: str = "shp", chosen: int = 0, rejected: int = 2) -> dict[str, Any]:
    """A row of PAIR."""
    passage = whole_post(f"Title of {post}", HOSTILE)
    return {
        "prompt": messages(model, passage, REPLIES[1] if model == "im" else None),
        "chosen": turn(REPLIES[chosen]),
        "rejected": turn(REPLIES[rejected]),
        "post_id": post,
        "chosen_id": f"{post}c{chosen}",
        "rejected_id": f"{post}c{rejected}",
        "rule": rule,
        "split": "test",
    }


def revision(post: str) -> dict[str, Any]:
    """A row of SFT for IM: the worst reply becomes the best."""
    return {
        "prompt": messages("im", whole_post(f"Title of {post}", HOSTILE), REPLIES[2]),
        "completion": turn(REPLIES[0]),
        "post_id": post,
        "comment_id": f"{post}c0",
        "original_id": f"{post}c2",
        "score": SCORES[0],
        "created_utc": 300,
        "split": "test",
    }


def write_stage(folder: Path, stage: str, files: dict[str, pa.Table], notes: tuple[str, ...] = ()) -> Path:
    """A complete output of an earlier stage."""
    with writing(folder, stage=stage, settings={}, inputs={}) as draft:
        for name, table in files.items():
            (draft.path / name).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, draft.path / name)
        draft.count("rows", read=9, kept=7, dropped={"score_too_low": 2})
        draft.notes.extend(notes)
    return folder


def write_data(root: Path) -> dict[str, Input]:
    """Threads, SFT rows, pairs from votes and from ratings, and the truth."""
    threads = pa.Table.from_pylist([*map(thread, POSTS), thread("other", "train")], schema=THREAD)
    votes = {
        f"{model}/test/a.parquet": pa.Table.from_pylist([pair(p, model) for p in POSTS], schema=PAIR)
        for model in ("gm", "im")
    }
    ratings = {
        f"{model}/test/a.parquet": pa.Table.from_pylist([pair(p, model, "ratings", 0, 1) for p in POSTS], schema=PAIR)
        for model in ("gm", "im")
    }
    rows = {"im/test/a.parquet": pa.Table.from_pylist([revision(p) for p in POSTS for _ in "ab"], schema=SFT)}
    ids = [f"{post}c{i}" for post in POSTS for i in range(3)]
    truth = pa.table({"comment_id": [*ids, "bot"], "quality": [*QUALITY * len(POSTS), None]})
    pq.write_table(truth, root / "truth.parquet")
    model = Exposure(
        threads=1, replies=3, usable_timestamps=True, top_score=8, bottom_score=2, kept=[],
        curves=[Curve(size_from=2, threads=1, pooled=False, noise=1.0, fall=[0.0, -0.1, -0.2])],
    )  # fmt: skip
    exposure = write_stage(root / "exposure", "exposure", {})
    (exposure / FILE).write_text(model.model_dump_json(), encoding="utf-8")
    return {
        "threads": write_stage(root / "threads", "corpus", {"part-0.parquet": threads}),
        "exposure": exposure,
        "sft": write_stage(root / "sft", "sft", rows),
        "pairs": write_stage(root / "pairs", "pairs", votes, ("The timing rule is off: <i>votes</i> follow arrival.",)),
        "rated_pairs": write_stage(root / "rated_pairs", "feedback", ratings, ("Ratings are simulated.",)),
        "truth": root / "truth.parquet",
    }


def write_adapters(root: Path, base: Path, names: tuple[str, ...]) -> dict[str, Input]:
    """Random adapters on ``base``, with curves, as training leaves them."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    found: dict[str, Input] = {}
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        folder = root / "adapters" / name
        with writing(folder, stage=f"train/{name}", settings={}, inputs={}) as draft:
            get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(draft.path)
            points = [{"step": i, "loss": 2 / i, "rewards/accuracies": 0.6} for i in range(1, 5)]
            (draft.path / "curves.json").write_text(json.dumps([*points, {"step": 5, "loss": float("nan")}]))
        found[f"adapters/{name}"] = folder
    return found
