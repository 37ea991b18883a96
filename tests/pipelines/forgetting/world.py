"""A run's folder as its stages leave it, small enough to be read: six threads and everything made of them.

Every text names its post or comment (``words of c2x1``), so that a search of the files tells
what is left of it.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs import Settings
from configs.training import MODELS
from pipelines.card import card_of
from pipelines.corpus.authors import author_hash, author_key, key_check
from pipelines.corpus.schema import THREAD
from pipelines.forgetting import kept
from pipelines.forgetting.match import from_threads
from pipelines.layout import Layout
from pipelines.manifest import Draft, Input, fingerprints, writing
from pipelines.pairs.schema import PAIR, SFT
from pipelines.training.tokens import DPO_TOKENS, PAIR_KEYS, SFT_TOKENS

SPLIT_OF = {"p0": "train", "p1": "train", "p2": "train", "p3": "validation", "p4": "test", "p5": "test"}
AUTHOR_OF = {"p0": "Ann", "p1": "Ann", "p2": "Ben", "p3": "Cem", "p4": "Dee", "p5": "Eve"}
WRITERS = ("Fay", "Gus", "Hal")
"""Writers of the three comments of each post: ``c0x0`` by Fay, ``c0x1`` by Gus, ``c0x2`` by Hal."""


def words(name: str) -> str:
    """The text of a post or comment."""
    return f"words of {name} and no others"


def turns(role: str, *names: str) -> list[dict[str, str]]:
    return [{"role": role, "content": " / ".join(map(words, names))}]


class World:
    """Outputs below ``root``; every method writes one."""

    def __init__(self, root: Path, **settings: Any):
        self.root = root
        self.at = Layout(root)
        self.settings = Settings(output=str(root), **settings)
        self.key = author_key(root)

    def write(self, folder: Path, stage: str, inputs: dict[str, Input], settings: dict[str, Any] | None = None) -> Any:
        """The frame in which every stage writes."""
        has_card = stage in {"corpus", "sft_rows", "pairs", "rated_pairs", "revisions"}
        return writing(
            folder,
            stage=stage,
            settings=settings or {},
            inputs=fingerprints(inputs),
            card=card_of(self.settings, inputs) if has_card else None,
        )

    def threads(self, note: str = "") -> None:
        """Two files of three posts with three comments each, and a quarantined line."""
        settings = kept.depends(self.root)
        gone = kept.load(self.root)
        with self.write(self.at.threads, "corpus", {}, settings) as draft:
            tables = [self.thread_table(posts) for posts in (("p0", "p1", "p2"), ("p3", "p4", "p5"))]
            found = [from_threads(table, gone) for table in tables]
            for number, one in enumerate(found):
                pq.write_table(one.kept, draft.path / f"part-{number}.parquet", compression="zstd")
            for kind, total, lost in (
                ("posts", 6, sum(one.posts for one in found)),
                ("comments", 18, sum(one.comments for one in found)),
            ):
                draft.count(kind, read=total + 1, kept=total - lost, dropped={"deleted": 1, "forgotten": lost})
            draft.figures |= {
                "subreddits": {"Quiet": {"posts": 6, "comments": 18}},
                "splits": {"train": {"posts": 3, "comments": 9}},
                "posts_with_comments": 6,
                "dates": {"first_post": "2021-04-01", "last_post": "2021-04-02"},
                "author_key": key_check(self.key),
            }
            draft.notes += [note] if note else []
            (draft.path / "quarantine").mkdir()
            torn = [
                {
                    "file": "RC",
                    "line": 7,
                    "reason": "malformed",
                    "text": '{"id": "c9x9", "author": "Gus", "body": "words of c9x9',
                },
                {
                    "file": "RC",
                    "line": 9,
                    "reason": "malformed",
                    "text": '{"id": "c8x8", "author": "Zoe", "body": "words of c8x8',
                },
            ]
            lines = "".join(json.dumps(row) + "\n" for row in torn)
            (draft.path / "quarantine" / "comments-1.jsonl").write_text(lines)

    def thread_table(self, posts: tuple[str, ...]) -> pa.Table:
        rows = []
        for post in posts:
            comments = [
                {
                    "comment_id": comment,
                    "author_hash": author_hash(WRITERS[k], self.key),
                    "text": words(comment),
                    "created_utc": 1000 + k,
                    "score": k,
                }
                for k, comment in enumerate(comments_of(post))
            ]
            rows.append(
                {
                    "post_id": post,
                    "subreddit": "Quiet",
                    "author_hash": author_hash(AUTHOR_OF[post], self.key),
                    "title": "A title",
                    "text": words(post),
                    "created_utc": 999,
                    "score": 5,
                    "split": SPLIT_OF[post],
                    "comments": comments,
                }
            )
        return pa.Table.from_pylist(rows, schema=THREAD)

    def sft(self) -> None:
        """GM: posts with their third comments. IM: the first comment revised into the third; p0's prompt shows c1x2."""
        with self.write(self.at.sft, "sft_rows", {"threads": self.at.threads}) as draft:
            rows = {model: [sft_row(model, post) for post in SPLIT_OF] for model in MODELS}
            self.rows(draft, rows, SFT)
            draft.count("threads", read=6, kept=6)

    def pairs(self) -> None:
        """The third comment over the second; IM's draft is the first."""
        with self.write(self.at.pairs, "pairs", {"threads": self.at.threads}) as draft:
            rows = {model: [pair_row(model, post) for post in SPLIT_OF] for model in MODELS}
            self.rows(draft, rows, PAIR)
            draft.count("threads", read=6, kept=6)

    def rows(self, draft: Draft, rows: dict[str, list[dict[str, Any]]], schema: pa.Schema) -> None:
        for model, made in rows.items():
            for split in ("train", "validation", "test"):
                part = [row for row in made if row["split"] == split]
                (draft.path / model / split).mkdir(parents=True)
                pq.write_table(pa.Table.from_pylist(part, schema), draft.path / model / split / "part-0.parquet")
                draft.figures.setdefault(model, {})[split] = {"pairs": len(part)} if schema is PAIR else len(part)
            draft.count(model, read=len(made), kept=len(made))

    def ratings(self) -> None:
        """One line a post: c?x2 against c?x1; IM's line of p1 has the words of c1x0 for a draft, and no id of it."""
        with self.write(self.at.ratings, "panel", {"threads": self.at.threads}) as draft:
            rows = [rating("gm", post) for post in SPLIT_OF] + [rating("im", "p1")]
            (draft.path / "ratings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            draft.count("ratings", read=7, kept=7)

    def rated_pairs(self) -> None:
        inputs = {"threads": self.at.threads, "ratings": [self.at.ratings / "ratings.jsonl"]}
        with self.write(self.at.rated_pairs, "rated_pairs", inputs) as draft:
            rows = [pair_row("gm", post) | {"rule": "ratings"} for post in SPLIT_OF]
            improved = pair_row("im", "p1") | {"rule": "ratings", "original_id": None, "example_ids": None}
            self.rows(draft, {"gm": rows, "im": [improved]}, PAIR)
            for model in MODELS:
                draft.rows[f"{model}_items"] = draft.rows.pop(model)
                draft.figures[f"{model}_pairs"] = {s: v["pairs"] for s, v in draft.figures.pop(model).items()}

    def exposure(self) -> None:
        with self.write(self.at.root / "exposure", "exposure", {"threads": self.at.threads}) as draft:
            (draft.path / "exposure.json").write_text("{}")
            draft.count("comments", read=18, kept=18)

    def tokens(self, model: str, stage: str) -> None:
        """Tokens of the rows, ids beside them."""
        source, schema = (self.at.sft, SFT_TOKENS) if stage == "sft" else (self.at.pairs, DPO_TOKENS)
        inputs: dict[str, Input] = {"rows": source, "base": "a/base"}
        with self.write(self.at.tokens(model, stage), f"tokens/{model}/{stage}", inputs) as draft:
            for split in ("train", "validation"):
                (draft.path / split).mkdir()
                rows = pq.read_table(source / model / split, partitioning=None).to_pylist()
                made = [{name: row.get(name) for name in schema.names if name in row} for row in rows]
                pq.write_table(pa.Table.from_pylist(made, schema), draft.path / split / "part-0.parquet")
                draft.count(split, read=len(rows), kept=len(rows))

    def reference(self, model: str, stage: str) -> None:
        """A number beside each tokenised pair."""
        tokens = self.at.tokens(model, stage)
        inputs: dict[str, Input] = {"tokens": tokens, "base": "a/base", "start": self.at.adapter(model, "sft")}
        with self.write(self.at.reference(model, stage), f"reference/{model}/{stage}", inputs) as draft:
            for split in ("train", "validation"):
                rows = pq.read_table(tokens / split, columns=list(PAIR_KEYS), partitioning=None)
                scored = rows.append_column("ref_chosen_logps", pa.array([-1.0] * rows.num_rows, pa.float32()))
                (draft.path / split).mkdir()
                pq.write_table(scored, draft.path / split / "part-0.parquet")
                draft.count(split, read=rows.num_rows, kept=rows.num_rows)

    def adapter(self, model: str, stage: str) -> None:
        inputs: dict[str, Input] = {"tokens": self.at.tokens(model, stage), "base": "a/base"}
        if stage != "sft":
            inputs |= {"start": self.at.adapter(model, "sft"), "reference": self.at.reference(model, stage)}
        with self.write(self.at.adapter(model, stage), f"train/{model}/{stage}", inputs) as draft:
            (draft.path / "adapter_model.safetensors").write_bytes(b"weights")

    def model(self, model: str) -> None:
        inputs: dict[str, Input] = {"base": "a/base", "adapter": self.at.adapter(model, "dpo1")}
        with self.write(self.at.model(model), f"merge/{model}", inputs) as draft:
            (draft.path / "model.safetensors").write_bytes(b"weights")

    def evaluation(self) -> None:
        inputs: dict[str, Input] = {"threads": self.at.threads, "sft": self.at.sft, "pairs": self.at.pairs}
        inputs |= {f"adapters/{model}/dpo1": self.at.adapter(model, "dpo1") for model in MODELS}
        with self.write(self.at.evaluation, "evaluation", inputs) as draft:
            (draft.path / "report.html").write_text(f"<p>{words('p4')}</p>")

    def teacher(self) -> None:
        """The teacher's answers to the first comment of each post, kept from run to run."""
        self.at.teacher.mkdir()
        rows = [
            {
                "key": post,
                "text": f"revised {words(comments_of(post)[0])}",
                "post_id": post,
                "original_id": comments_of(post)[0],
                "example_ids": None,
            }
            for post in SPLIT_OF
        ]
        (self.at.teacher / "answers-1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def everything(self) -> "World":
        """All outputs, in the order of the data's way."""
        self.threads()
        self.exposure()
        self.sft()
        self.pairs()
        self.ratings()
        self.rated_pairs()
        self.teacher()
        for model in MODELS:
            for stage in ("sft", "dpo1"):
                self.tokens(model, stage)
                if stage != "sft":
                    self.reference(model, stage)
                self.adapter(model, stage)
            self.model(model)
        self.evaluation()
        (self.root / "manifest.json").write_text("{}")
        return self


def comments_of(post: str) -> list[str]:
    return [f"c{post[1:]}x{k}" for k in range(3)]


def sft_row(model: str, post: str) -> dict[str, Any]:
    first, _, third = comments_of(post)
    example = "c1x2" if model == "im" and post == "p0" else None
    shown = [post, *([first] if model == "im" else []), *([example] if example else [])]
    return {
        "prompt": turns("user", *shown),
        "completion": turns("assistant", third),
        "post_id": post,
        "comment_id": third,
        "original_id": first if model == "im" else None,
        "score": 2,
        "created_utc": 1002,
        "split": SPLIT_OF[post],
        "example_ids": [example] if example else None,
    }


def pair_row(model: str, post: str) -> dict[str, Any]:
    first, second, third = comments_of(post)
    return {
        "prompt": turns("user", post, *([first] if model == "im" else [])),
        "chosen": turns("assistant", third),
        "rejected": turns("assistant", second),
        "post_id": post,
        "chosen_id": third,
        "rejected_id": second,
        "rule": "matched",
        "split": SPLIT_OF[post],
        "original_id": first if model == "im" else None,
        "example_ids": None,
    }


def rating(model: str, post: str) -> dict[str, Any]:
    first, second, third = comments_of(post)
    return {
        "item_id": f"{model}-{post}",
        "model": model,
        "post_id": post,
        "post": {"title": "A title", "text": words(post)},
        "draft": words(first) if model == "im" else None,
        "response_a": {"id": third, "text": words(third)},
        "response_b": {"id": second, "text": words(second)},
    }


def files_with(root: Path, text: str) -> list[str]:
    """Every file below ``root``, hidden ones too, in which ``text`` stands: in any string of Parquet, else as bytes."""
    found = []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        if path.suffix == ".parquet":
            held = any(
                text in value
                for table in [pq.read_table(path, partitioning=None)]
                for value in strings(table.to_pylist())
            )
        else:
            held = text.encode() in path.read_bytes()
        if held:
            found.append(str(path.relative_to(root)))
    return found


def strings(value: Any) -> list[str]:
    """All strings inside a value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [text for item in value for text in strings(item)] if isinstance(value, list) else []
