"""What README and docs tell to type: the real command takes every one, and every setting they name is there."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from cluster.cli import app
from configs import Settings
from configs.load import PRESETS, load

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "cluster").glob("*/README.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"\bllumi ([a-z]+ .*)")
SECTIONS = "|".join(name for name, field in Settings.model_fields.items() if hasattr(field.annotation, "model_fields"))
FILES = r"py|md|json|jsonl|png|html|safetensors|parquet|key|db|yaml"
SETTING = re.compile(rf"(?<![\w/.-])(?:{SECTIONS})\.(?!(?:{FILES})\b)[a-z][\w.]*[a-z0-9](?!\w)")
USAGE_ERROR = typer.BadParameter.__bases__[0]
PRESET_NAMES = {path.stem for path in PRESETS.glob("*.yaml")}


def to_type(text: str) -> Iterator[list[str]]:
    """The words after each ``llumi`` in blocks of shell, as the shell splits them."""
    for language, block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines() if language == "sh" else ():
            if match := COMMAND.search(line):
                yield shlex.split(re.split(r" \| |\)$", match[1])[0], comments=True)


def named(text: str) -> Iterator[list[str]]:
    """The same of code within sentences and tables, which may leave out what a command needs."""
    for code in INLINE.findall(FENCE.sub("", text).replace("\\|", "|")):
        if match := COMMAND.search(code):
            yield shlex.split(match[1])


def parsed(words: list[str], *, whole: bool) -> dict[str, Any]:
    """What the command makes of its words without running; raises typer's usage errors."""
    command: Any = typer.main.get_command(app)
    name, context = "llumi", None
    while hasattr(command, "resolve_command"):
        context = command.make_context(name, list(words), parent=context)
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
    parsed = command.make_context(name, list(words), parent=context, resilient_parsing=not whole).params
    assert whole or not [word for word in words if word.startswith("--") and word not in options(command)]
    return dict(parsed)


def options(command: Any) -> set[str]:
    """Every spelling of a command's options; ``--`` ends them."""
    return {"--", *(name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts))}


def places(kind: Any) -> list[Any]:
    return [
        pytest.param(words, id=f"{page.relative_to(ROOT)}: {' '.join(words)}")
        for page in PAGES
        for words in kind(page.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize("words", places(to_type))
def test_each_command_to_type_is_one_with_settings_that_load(words: list[str]) -> None:
    given = parsed(words, whole=True)
    config = given.get("config", "demo")
    load(config if config in PRESET_NAMES else "tiny", given.get("overrides") or ())


@pytest.mark.parametrize("words", places(named))
def test_each_command_that_is_named_is_one(words: list[str]) -> None:
    assert parsed(words, whole=False) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_setting_that_is_named_is_one(page: Path) -> None:
    unknown = [name for name in SETTING.findall(page.read_text(encoding="utf-8")) if not is_setting(name)]
    assert unknown == []


def is_setting(name: str) -> bool:
    """Whether a path of dots leads through the sections of the settings."""
    section: Any = Settings
    for part in name.split("."):
        fields = getattr(section, "model_fields", {})
        if part not in fields:
            return False
        annotation = fields[part].annotation
        inner = [annotation, *getattr(annotation, "__args__", ())]
        section = next((option for option in inner if hasattr(option, "model_fields")), None)
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_configuration_that_is_shown_loads(page: Path, tmp_path: Path) -> None:
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "yaml" and block.startswith("extends:"):
            (tmp_path / "mine.yaml").write_text(block, encoding="utf-8")
            load(tmp_path / "mine.yaml")


def test_readme_shows_every_command() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    shown = set(re.findall(r"^\| `llumi (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert shown == set(commands)


@pytest.mark.parametrize(
    "line", ["keys create demo", "rollout start demo --model xm --to x", "serve  ", "nonsense x", "serve demo --nope"]
)
def test_a_command_that_is_none_would_be_found(line: str) -> None:
    with pytest.raises(USAGE_ERROR):
        parsed(next(to_type(f"```sh\nllumi {line}\n```\n")), whole=True)


def test_an_option_or_a_setting_that_is_none_would_be_found() -> None:
    with pytest.raises(AssertionError):
        parsed(next(named("by `llumi rollout back --to X`")), whole=False)
    assert not is_setting("serving.keys_file")
    assert not is_setting("serving.access.keys_file.path")
