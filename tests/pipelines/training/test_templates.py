"""Hashes of the chat template and the tokenizer."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.training import templates


@pytest.fixture
def base(tokenizer: Any, tmp_path: Path) -> Path:
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def changes(base: Path, before: dict[str, str | None]) -> set[str]:
    return {name for name, value in templates.of(str(base)).items() if value != before[name]}


def test_a_changed_template_is_told_from_a_changed_tokenizer(base: Path) -> None:
    before = templates.of(str(base))
    assert all(before.values())
    (base / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    assert changes(base, before) == {"template"}
    before = templates.of(str(base))
    config = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "<unk>"}))
    assert changes(base, before) == {"tokenizer"}


def test_a_template_is_found_where_older_tokenizers_keep_it(base: Path) -> None:
    before = templates.of(str(base))
    text = (base / "chat_template.jinja").read_text()
    (base / "chat_template.jinja").unlink()
    config = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": text}))
    assert templates.of(str(base)) == before


def test_what_no_tokenizer_reads_changes_nothing_and_what_is_not_here_has_no_hash(base: Path) -> None:
    before = templates.of(str(base))
    (base / "README.md").write_text("other words")
    assert not changes(base, before)
    nothing = {"template": None, "tokenizer": None}
    assert templates.of(str(base / "nowhere")) == templates.of("nobody/not-in-this-cache") == nothing
