"""One stage of the way: where its code is, what it reads and writes, when it applies."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Literal

from configs.settings import Settings
from pipelines import manifest
from pipelines.manifest import Input, Manifest

Inputs = dict[str, Input]


def applies() -> str | None:
    """The rule of a stage that always applies."""
    return None


@dataclass(frozen=True)
class Stage:
    """A row of the table; its module is imported and its inputs are looked up only when it is reached."""

    name: str
    """As in ``--until`` and ``--force``."""
    module: str
    """Where its ``STAGE`` (or ``stage_name``), ``depends`` and ``build`` are."""
    output: Path
    """The folder it writes."""
    inputs: Callable[[], Inputs]
    """What it reads."""
    command: str
    """What to run to make it alone."""
    unless: Callable[[], str | None] = applies
    """Why it does not apply, None where it does."""
    needs: Literal["data", "dumps", "training"] | None = "data"
    """What it asks of Ray: a task, the memory to read dumps, all training workers; None runs without Ray."""
    words: Mapping[str, str] = field(default_factory=dict)
    """``model`` and ``stage``, for modules that make more than one output."""

    def matches(self, prefix: str) -> bool:
        """Whether ``prefix`` names this stage or a group it stands in: ``train``, ``train/gm``."""
        return self.name == prefix or self.name.startswith(f"{prefix}/")

    def is_current(self, settings: Settings) -> bool:
        """Whether the output is there already, from these settings and inputs."""
        if not (self.output / manifest.FILE).is_file():
            return False
        module = self.load()
        name = module.stage_name(**self.words) if self.words else module.STAGE
        inputs = manifest.fingerprints(self.inputs())
        return manifest.is_current(self.output, name, module.depends(settings, **self.words), inputs)

    def make(self, settings: Settings) -> Manifest:
        """Build the output, whatever is there."""
        made: Manifest = self.load().build(settings, self.inputs(), self.output, **self.words)
        return made

    def load(self) -> ModuleType:
        """The stage's module."""
        return import_module(self.module)


class SampleStage(Stage):
    """The built-in sample: it knows no other settings than its own and reads nothing."""

    def is_current(self, settings: Settings) -> bool:
        """Whether this very sample is there already."""
        module = self.load()
        return manifest.is_current(self.output, module.STAGE, module.depends(settings.sample), {})

    def make(self, settings: Settings) -> Manifest:
        """Write its dumps and truth."""
        made: Manifest = self.load().build(settings.sample, self.output)
        return made
