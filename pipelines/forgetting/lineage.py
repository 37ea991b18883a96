"""Which outputs there are below a run's folder, and which was made from which: by their manifests alone.

A manifest names its inputs by fingerprint, and an output's fingerprint is that of its
manifest. So the folders with manifests form a graph, whatever stages made them, and
``llumi forget`` needs no list of stages to follow a row from the threads into a model.
"""

from dataclasses import dataclass, field
from pathlib import Path

from pipelines import manifest
from pipelines.manifest import Manifest

DEPTH = 3
"""Folders below the root in which manifests are looked for: ``adapters/gm/sft``."""


@dataclass(eq=False)
class Output:
    """A complete output."""

    path: Path
    made: Manifest
    fingerprint: str
    sources: dict[str, "Output"] = field(default_factory=dict)
    """Its inputs that are outputs here and as they were when it was made, by name of the input."""

    @property
    def stage(self) -> str:
        """The stage's name without model and training stage: ``train`` of ``train/gm/dpo1``."""
        return self.made.stage.split("/")[0]

    def words(self) -> tuple[str, ...]:
        """What follows in the stage's name: model, and training stage where there is one."""
        return tuple(self.made.stage.split("/")[1:])

    def came_from(self, other: "Output") -> bool:
        """Whether ``other`` is among its sources, or theirs."""
        return any(source is other or source.came_from(other) for source in self.sources.values())


def outputs(root: Path) -> list[Output]:
    """Every complete output below ``root``, sources before what was made from them; hidden folders are none."""
    found: dict[str, Output] = {}
    folders: list[Path] = []
    for depth in range(1, DEPTH + 1):
        for file in sorted(root.glob("/".join(["*"] * depth) + f"/{manifest.FILE}")):
            folder = file.parent
            names = folder.relative_to(root).parts
            if any(name.startswith(".") for name in names) or any(f in folder.parents for f in folders):
                continue
            folders.append(folder)
            made = manifest.read(folder)
            assert made is not None
            found[str(folder)] = Output(folder, made, manifest.fingerprint(folder))
    return ordered(list(found.values()))


def ordered(found: list[Output]) -> list[Output]:
    """The outputs with their sources, in an order in which each comes after all of these."""
    by_print = {output.fingerprint: output for output in found}
    for output in found:
        names = {name: by_print.get(value) for name, value in output.made.inputs.items()}
        output.sources = {name: source for name, source in names.items() if source is not None}
    done: list[Output] = []

    def add(output: Output) -> None:
        if output not in done:
            for source in output.sources.values():
                add(source)
            done.append(output)

    for output in found:
        add(output)
    return done
