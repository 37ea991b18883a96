"""Reading a configuration: YAML presets with ``extends:``, overrides, clear errors.

    settings = load("configs/tiny.yaml", ["output=/data/run", "training.workers=4"])

A preset is found by path, or by the name of one that ships with the package.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from configs.errors import ConfigError
from configs.settings import Settings

PRESETS = Path(__file__).parent


def load(path: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """The settings in the YAML file ``path`` with ``key.path=value`` overrides applied.

    Raises ConfigError naming the file and the field for anything that does not fit.
    """
    tree = read_tree(find(path))
    for override in overrides:
        apply_override(tree, override)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explain(error, str(path))) from None


def find(path: str | Path) -> Path:
    """The file at ``path``, or the shipped preset of that name."""
    named = PRESETS / f"{path}.yaml"
    for candidate in (Path(path), named):
        if candidate.is_file():
            return candidate
    shipped = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
    raise ConfigError(f"configuration {path} is not there; give a YAML file or one of the presets: {shipped}")


def read_tree(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The file's mapping laid over that of the file it ``extends:``."""
    path = path.resolve()
    if path in seen:
        raise ConfigError(f"{path}: extends itself by way of {seen[-1]}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(tree).__name__}")
    parent = tree.pop("extends", None)
    if parent is None:
        return tree
    beside = path.parent / str(parent)
    return merge(read_tree(beside if beside.is_file() else find(str(parent)), (*seen, path)), tree)


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``above`` laid over ``below``: mappings merge key by key, everything else replaces."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one ``a.b.c=value`` in place; the value is read as YAML."""
    key, sign, text = override.partition("=")
    names = key.strip().split(".")
    if not sign or not all(names):
        raise ConfigError(f"--set {override}: expected KEY=VALUE, for example training.workers=4")
    node = tree
    for name in names[:-1]:
        child = node.get(name)
        if not isinstance(child, dict):
            child = node[name] = {}
        node = child
    try:
        node[names[-1]] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: the value is not YAML: {' '.join(str(error).split())}") from None


def explain(error: ValidationError, source: str) -> str:
    """One line that names each field that does not fit, and for an unknown key the known ones."""
    lines = []
    for item in error.errors(include_url=False):
        names = [str(part) for part in item["loc"] if not str(part).startswith("<")]  # <...> tags a union's variant
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown key {'.'.join(names)}; known here: {', '.join(known_keys(names[:-1]))}")
        else:
            lines.append(f"{'.'.join(names) or 'settings'}: {item['msg']}")
    return f"{source}: " + "; ".join(lines)


def known_keys(names: Sequence[str]) -> list[str]:
    """The field names of the section at ``names``."""
    section: Any = Settings
    for name in names:
        field = section.model_fields.get(name) if hasattr(section, "model_fields") else None
        if field is None:
            return []
        options = [field.annotation, *getattr(field.annotation, "__args__", ())]
        section = next((option for option in options if hasattr(option, "model_fields")), None)
    return sorted(getattr(section, "model_fields", {}))


def to_yaml(settings: Settings) -> str:
    """The resolved configuration as YAML that ``load`` reads back to the same settings."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
