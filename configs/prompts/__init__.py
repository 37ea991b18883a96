"""Prompt templates of GM and IM: Jinja files with slots for the post, the draft and retrieved examples.

What people wrote enters as delimited data. ``delimited`` takes our own delimiters and
the special tokens of chat templates out of it, so that a post cannot close its block
or open a turn of its own.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template

from configs.errors import ConfigError

FOLDER = Path(__file__).parent
_DELIMITERS = re.compile(r"</?\s*(?:post|draft|example|comment)\s*>", re.IGNORECASE)
_SPECIAL = re.compile(r"</?s>|<unk>|<pad>|\[/?INST\]|<<?/?SYS>>?|<\|[^|>\s]{1,40}\|>", re.IGNORECASE)


def delimited(text: str) -> str:
    """``text`` without anything that looks like our delimiters or a chat template's special tokens.

    Repeats until nothing is left to take out, so that nesting cannot rebuild a token.
    """
    while True:
        cleaned = _SPECIAL.sub("", _DELIMITERS.sub("", text))
        if cleaned == text:
            return cleaned.strip()
        text = cleaned


def whole_post(title: str, text: str) -> str:
    """Title and text as one passage, the way every stage and the service present a post."""
    return "\n\n".join(part for part in (title.strip(), text.strip()) if part)


@cache
def source(name: str) -> str:
    """The template's text: a name in this folder, or a path that ends in ``.md``."""
    path = Path(name) if name.endswith(".md") else FOLDER / f"{name}.md"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in FOLDER.glob("*.md")))
        raise ConfigError(f"prompt template {name} is not there; shipped are: {names}, or give a path ending in .md")
    return path.read_text(encoding="utf-8")


@cache
def compiled(name: str) -> Template:
    """The template, compiled once: a corpus renders it a million times."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    return environment.from_string(source(name))


def fingerprint(name: str) -> str:
    """SHA-256 (hex) of the template's text."""
    return hashlib.sha256(source(name).encode()).hexdigest()


def render(name: str, post: str, draft: str | None = None, examples: Sequence[Mapping[str, str]] = ()) -> str:
    """The user turn for one post (and draft), with ``examples`` of keys ``post`` and ``reply``."""
    values = {
        "post": delimited(post),
        "draft": delimited(draft or ""),
        "examples": [{key: delimited(value) for key, value in example.items()} for example in examples],
    }
    return compiled(name).render(values).strip()


def messages(
    name: str, post: str, draft: str | None = None, examples: Sequence[Mapping[str, str]] = ()
) -> list[dict[str, str]]:
    """The prompt in the conversational form of TRL: one user turn."""
    return [{"role": "user", "content": render(name, post, draft, examples)}]
