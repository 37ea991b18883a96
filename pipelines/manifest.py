"""Outputs that are whole or absent: a temporary sibling, a rename, the manifest written last.

    with writing(layout.threads, stage="corpus", settings=part, inputs={...}) as draft:
        ...write below draft.path...
        draft.count("comments", read=10, kept=8, dropped={"deleted": 2})

The presence of ``manifest.json`` means "complete". Two manifests with the same key
(stage, settings and inputs) describe the same output, which is how a stage is skipped.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from configs.errors import DataError, NoSpace, StageOrderError
from pipelines.interrupted import draft_of, no_space

FILE = "manifest.json"
CARD = "DATA_CARD.md"
Input = Path | str | Sequence[Path] | Sequence[str]
"""What a stage reads: another stage's folder, a file, a name, or several of one kind."""
PACKAGES = ("cluster", "configs", "pipelines", "serving")


class RowCount(BaseModel):
    """Rows of one kind: read == kept + sum(dropped)."""

    model_config = ConfigDict(extra="forbid")
    read: int
    kept: int
    dropped: dict[str, int] = {}

    @model_validator(mode="after")
    def _conserved(self) -> Self:
        gone = sum(self.dropped.values())
        if self.read != self.kept + gone:
            raise ValueError(f"rows are not conserved: read {self.read}, kept {self.kept} + dropped {gone}")
        return self


class Manifest(BaseModel):
    """From what, by which settings and which code an output was made."""

    model_config = ConfigDict(extra="forbid")
    stage: str
    """Name of the stage, for example ``corpus`` or ``train/gm/dpo1``."""
    version: str
    """Version of the distribution."""
    code: str
    """SHA-256 (hex) of the four packages' sources."""
    created: str
    """Time of completion, ISO 8601, UTC."""
    seconds: float
    """Wall time of the stage."""
    settings: dict[str, Any]
    """The settings that the output depends on."""
    inputs: dict[str, str]
    """Fingerprint of each input by name."""
    key: str
    """SHA-256 (hex) of stage, settings and inputs."""
    rows: dict[str, RowCount] = {}
    """Row counts by kind."""
    figures: dict[str, Any] = {}
    """What else was measured."""
    notes: list[str] = []
    """What a reader of the output must know, in plain words."""
    files: dict[str, int] = {}
    """Size in bytes of each file, by path relative to the folder."""


class Draft:
    """An output while it is being written below ``path``."""

    def __init__(self, path: Path):
        self.path = path
        self.rows: dict[str, RowCount] = {}
        self.figures: dict[str, Any] = {}
        self.notes: list[str] = []
        self.manifest: Manifest | None = None

    def count(self, kind: str, *, read: int, kept: int, dropped: Mapping[str, int] | None = None) -> None:
        """Record the fate of every row of one kind; raises ValueError where rows went missing."""
        nonzero = {reason: n for reason, n in sorted((dropped or {}).items()) if n}
        self.rows[kind] = RowCount(read=read, kept=kept, dropped=nonzero)


@contextmanager
def writing(
    output: Path,
    *,
    stage: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    resolved: str | None = None,
    card: Callable[["Manifest"], str] | None = None,
) -> Iterator[Draft]:
    """A draft whose folder takes the place of ``output`` once the block ends without an error.

    ``settings`` are JSON values, ``inputs`` fingerprints by name, ``resolved`` the whole
    configuration as YAML, saved beside the output as ``settings.yaml``; ``card`` renders
    ``DATA_CARD.md`` from the manifest. After the block, ``draft.manifest`` holds what was written.
    Raises NoSpace where the disk is full, here or on the node of a task.
    """
    started = time.monotonic()
    partial = draft_of(output)
    shutil.rmtree(partial, ignore_errors=True)
    draft = Draft(partial)
    full: NoSpace | None = None
    try:
        partial.mkdir(parents=True)
        yield draft
        readable(partial)
        (partial / "settings.yaml").write_text(resolved or yaml.safe_dump(dict(settings)), encoding="utf-8")
        made = Manifest(
            stage=stage,
            version=distribution_version(),
            code=code_fingerprint(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - started, 3),
            settings=dict(settings),
            inputs=dict(inputs),
            key=key_of(stage, settings, inputs),
            rows=draft.rows,
            figures=draft.figures,
            notes=draft.notes,
        )
        draft.manifest = write(partial, made, card)
        replace(partial, output)
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        full = no_space(error, output.parent)
        if full is None:
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if full is not None:  # outside the block: what the tasks raised would be shown as its context
        raise full


def write(folder: Path, made: Manifest, card: Callable[[Manifest], str] | None = None) -> Manifest:
    """Write the card and then ``made`` with the sizes of the files in ``folder``; returns what was written."""
    made = made.model_copy(update={"files": sizes(folder)})
    if card is not None:
        (folder / CARD).write_text(card(made), encoding="utf-8")
        made = made.model_copy(update={"files": sizes(folder)})
    (folder / FILE).write_text(dump(made), encoding="utf-8")
    return made


def dump(made: Manifest) -> str:
    """The text of ``manifest.json``."""
    return made.model_dump_json(indent=1)


def sizes(folder: Path) -> dict[str, int]:
    """Size in bytes of each file but the manifest, by path relative to the folder."""
    found = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    found.pop(FILE, None)
    return found


def readable(folder: Path) -> None:
    """Give each file the mode that new files have here: safetensors writes 0600, which other users cannot serve."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~umask)


def replace(partial: Path, output: Path) -> None:
    """Put the finished folder where the old one stood; at no moment is a half-written one there."""
    old = output.with_name(f".{output.name}.old-{os.getpid()}")
    if output.exists():
        output.rename(old)
    partial.rename(output)
    shutil.rmtree(old, ignore_errors=True)


def read(folder: Path) -> Manifest | None:
    """The manifest in ``folder``, None where the output is not complete."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError:
        raise DataError(f"{path}: not a manifest of this version; remove the folder or run with --force") from None


def require(folder: Path, made_by: str) -> Manifest:
    """The manifest of an input; raises StageOrderError naming the command that makes it."""
    manifest = read(folder)
    if manifest is None:
        raise StageOrderError(f"{folder} is not complete: run `{made_by}` first")
    return manifest


def is_current(folder: Path, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> bool:
    """Whether ``folder`` already holds what this stage would write."""
    manifest = read(folder)
    return manifest is not None and manifest.key == key_of(stage, settings, inputs)


def key_of(stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """SHA-256 (hex) over the stage's name, its settings and its inputs."""
    text = json.dumps([stage, settings, dict(inputs)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprints(inputs: Mapping[str, Input]) -> dict[str, str]:
    """A fingerprint of each input: of the manifest of a stage's folder, of a file, or of a plain string.

    Raises StageOrderError for a folder that holds no complete output.
    """
    return {name: fingerprint(value) for name, value in inputs.items()}


def fingerprint(value: Input) -> str:
    """SHA-256 (hex) that changes whenever the input was made again."""
    if isinstance(value, Path):
        if value.is_file():
            return file_fingerprint(value)
        manifest = value / FILE
        if not manifest.is_file():
            raise StageOrderError(f"{value} is not complete: run the stage that makes it first")
        return hashlib.sha256(manifest.read_bytes()).hexdigest()
    if isinstance(value, str):
        return hashlib.sha256(value.encode()).hexdigest()
    return hashlib.sha256("".join(fingerprint(item) for item in value).encode()).hexdigest()


def file_fingerprint(path: str | Path, content: Path | None = None) -> str:
    """Fingerprint of a local file by name, size and time of change, without reading it.

    ``content`` is where the file lies that will have this name.
    """
    stat = Path(content or path).stat()
    return hashlib.sha256(f"{path}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()


def distribution_version() -> str:
    """Version of the installed distribution, ``0+source`` where the code runs uninstalled."""
    try:
        return version("llumi")
    except PackageNotFoundError:
        return "0+source"


@cache
def code_fingerprint() -> str:
    """SHA-256 (hex) over every source file of the four packages."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in {".py", ".md", ".yaml", ".j2"} and path.is_file():
                digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
