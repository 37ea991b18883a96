"""``llumi export``: trained models to a folder, a store or the layout of a Hugging Face repository.

Nothing is uploaded anywhere but to the place that was named. The output is not locked, so that a
long training run does not keep an earlier stage's model from leaving; a model that is made again
meanwhile is noticed.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from cluster.stages import Way
from configs.errors import ExportError
from configs.settings import Settings
from configs.training import MODELS, ModelName, StageName
from pipelines import manifest
from pipelines.training import delivery
from pipelines.training import export as exporting
from pipelines.training.delivery import Delivered
from pipelines.training.export import FolderLayout, Form


def export(
    settings: Settings,
    target: str,
    *,
    model: ModelName | None,
    stage: StageName | None,
    form: Form | None,
    layout: FolderLayout,
    forgotten: bool,
    console: Console,
) -> list[Delivered]:
    """Export one model to ``target``, or both to folders below it; returns where they are.

    The last stage that applies is taken, and merged, unless ``stage`` or ``form`` say otherwise;
    a stage by name is taken as an adapter. All are looked at before the first is copied.
    """
    models: Sequence[ModelName] = [model] if model else MODELS
    way, done = Way(settings), []
    choices = [
        exporting.choose(settings, name, form or ("adapter" if stage else "merged"), stage, way.trained(name)[-1])  # type: ignore[arg-type]
        for name in models
    ]
    with tempfile.TemporaryDirectory(prefix="llumi-export-") as scratch:
        prepared = [
            exporting.prepare(choice, settings, Path(scratch) / choice.model, layout, forgotten=forgotten)
            for choice in choices
        ]
        for choice, files in zip(choices, prepared, strict=True):
            sums = delivery.hashes(files)
            if manifest.read(choice.folder) != choice.made:
                raise ExportError(f"{choice.folder} was made again while it was exported; export again")
            delivered = delivery.deliver(files, sums, target if model else below(target, choice.model))
            console.print(told(choice, delivered), highlight=False, soft_wrap=True, markup=False)
            done.append(delivered)
    return done


def below(target: str, name: str) -> str:
    """The folder ``name`` in ``target``, a path or a URI perhaps with a query."""
    from pipelines.corpus.sources import split_query

    start, query = split_query(target)
    return f"{start.rstrip('/')}/{name}{query}"


def told(choice: exporting.Choice, delivered: Delivered) -> str:
    """One line for people."""
    what = "written and verified" if delivered.written else "there already, verified"
    size = f"{delivered.files} files, {delivered.size / 1e6:,.1f} MB"
    return f"{choice.model} {choice.stage} {choice.form}: {size}, {what}"
