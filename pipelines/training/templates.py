"""What tokens depend on besides rows: a hash of the chat template and one of the tokenizer's files.

A base named by a folder or by the hub can change under its name. These hashes stand among the
settings that tokens are keyed by, so that such a change makes them stale, and is named.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.settings import Settings
from configs.training import SCRATCH
from pipelines.layout import Layout

CONFIG = "tokenizer_config.json"
TEMPLATES = ("chat_template.jinja", "chat_template.json")
"""Files of a template of its own, the later transformers' first; else it stands in ``CONFIG``."""
FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tekken.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
)
NAMES = ("template", "tokenizer")


def of_settings(settings: Settings) -> dict[str, str | None]:
    """``of`` the base that the settings name."""
    base = settings.model.base
    folder = str(Layout(Path(settings.output)).base) if base == SCRATCH else base
    return of(folder, settings.model.revision)


def of(base: str, revision: str | None = None) -> dict[str, str | None]:
    """SHA-256 (hex) of the chat template and of the tokenizer's files, by ``NAMES``.

    ``base`` is a folder or a Hugging Face name; of the latter, the files in this machine's cache
    count. None where the base has no such file, or is not on this machine yet.
    """
    config: dict[str, Any] = {}
    if path := located(base, CONFIG, revision):
        config = json.loads(path.read_text(encoding="utf-8"))
    template = config.pop("chat_template", None)
    for name in TEMPLATES:
        if path := located(base, name, revision):
            template = path.read_text(encoding="utf-8")
            break
    kept = [(name, path.read_bytes()) for name in FILES if (path := located(base, name, revision))]
    if config:
        kept.append((CONFIG, json.dumps(config, sort_keys=True).encode()))
    return {
        "template": None if template is None else digest([("", json.dumps(template).encode())]),
        "tokenizer": digest(kept) if kept else None,
    }


def located(base: str, name: str, revision: str | None) -> Path | None:
    """One of the base's files on this machine."""
    folder = Path(base).expanduser()
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    if base.startswith((".", "/", "~")) or base.count("/") > 1:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(base, name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def digest(parts: list[tuple[str, bytes]]) -> str:
    """SHA-256 (hex) of named contents."""
    found = hashlib.sha256()
    for piece in pieces(parts):
        found.update(piece)
    return found.hexdigest()


def pieces(parts: list[tuple[str, bytes]]) -> Iterator[bytes]:
    """Names and contents, each after its length, so that no two lists give the same bytes."""
    for name, content in parts:
        for value in (name.encode(), content):
            yield len(value).to_bytes(8, "big")
            yield value
