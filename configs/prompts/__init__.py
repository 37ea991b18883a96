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
_HIDDEN = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]")
"""Characters that nobody sees and a model reads: they break tags up, or spell whole instructions."""
_OPEN, _CLOSE = "[<\uff1c\u2039\u3008]", "[>\uff1e\u203a\u3009]"
_DELIMITERS = re.compile(
    rf"{_OPEN}\s{{0,4}}[/\uff0f\\]?\s{{0,4}}(?:post|draft|example|comment)(?:\s{{1,4}}[\w-]{{1,20}}=[^<>\s]{{0,40}})?\s{{0,4}}[/\uff0f]?\s{{0,4}}{_CLOSE}",
    re.IGNORECASE,
)
_SPECIAL = re.compile(
    r"</?\s{0,4}s\s{0,4}>|</?\s{0,4}(?:unk|pad|bos|eos|mask|cls|sep|endoftext|think|tool_call|tool_response)\s{0,4}>"
    r"|<(?:start|end)_of_turn>|<0x[0-9a-f]{2}>|<<?/?SYS>>?|<[|\uff5c][^|\uff5c>\s]{1,40}[|\uff5c]>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID|THINK|IMG|IMG_BREAK"
    r"|IMG_END|AUDIO|BEGIN_AUDIO|TRANSCRIBE|PREFIX|MIDDLE|SUFFIX|CONTROL_\d+|REFERENCE_DOC_\d+)\]",
    re.IGNORECASE,
)
"""Special tokens of the chat templates of Mistral, Llama 2 and 3, Gemma, Qwen, DeepSeek, Phi and of BERT's family."""
_BRACKETS = re.compile("[][<>\uff1c\uff1e\u2039\u203a\u3008\u3009]")
PASSES = 8
"""Times that a text is gone through for tokens."""


def delimited(text: str) -> str:
    """``text`` without anything that looks like our delimiters or a chat template's special tokens.

    Characters that cannot be seen go too. Repeats, so that nesting cannot rebuild a token; what is nested
    deeper than anybody writes by chance loses its brackets altogether, so that it cannot cost much time.
    """
    for _ in range(PASSES):
        cleaned = _SPECIAL.sub("", _DELIMITERS.sub("", _HIDDEN.sub("", text)))
        if cleaned == text:
            return cleaned.strip()
        text = cleaned
    return _BRACKETS.sub("", text).strip()


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
