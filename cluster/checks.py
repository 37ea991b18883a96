"""What is looked at before a run starts, so that it does not stop hours later."""

from pathlib import Path

from configs.errors import ConfigError, ModelNotFound
from configs.settings import Settings
from configs.training import SCRATCH
from pipelines.training import fitting, modes


def check_settings(settings: Settings) -> None:
    """Raises ConfigError or ModelNotFound for what would only stop a run after hours."""
    if settings.feedback.panel and not settings.sample:
        raise ConfigError(
            "feedback.panel simulates raters from the truth of the built-in sample: set sample, or panel to null"
        )
    modes.check(settings)
    check_base(settings)
    check_embedder(settings)
    check_teacher(settings)


def check_embedder(settings: Settings) -> None:
    """Raises ModelNotFound where ``retrieval.embedder.model`` names no sentence-transformers model."""
    from configs.retrieval import LEXICAL
    from pipelines.retrieval.embed import model_folder

    if settings.retrieval.embedder.model != LEXICAL:
        model_folder(settings.retrieval.embedder)


def check_teacher(settings: Settings) -> None:
    """Raises ConfigError where the teacher that is still to be asked is not in-house or its key is not there."""
    from pipelines.layout import Layout
    from pipelines.manifest import FILE

    made = Layout(Path(settings.output)).revisions / FILE
    if "teacher" in settings.improvement.sources and not made.is_file():
        from pipelines.pairs.im.build import ready

        ready(settings)


def check_base(settings: Settings) -> None:
    """Raises ModelNotFound where ``model.base`` names a folder that holds no model, or none that can be loaded."""
    base = settings.model.base
    if base == SCRATCH:
        return
    folder = Path(base).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelNotFound(f"model.base {base}: no config.json in this folder, so it holds no model")
        fitting.check_targets(settings, str(folder))
        return
    if base.startswith((".", "/", "~")) or base.count("/") != 1:
        raise ModelNotFound(f"model.base {base} is not there; give a folder, a Hugging Face name or `{SCRATCH}`")
    check_hub(base, settings.model.revision)


def check_hub(name: str, revision: str | None) -> None:
    """Raises ModelNotFound where neither the cache nor the hub has a model of this name that may be read."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        hf_hub_download(name, "config.json", revision=revision)
    except (OSError, ValueError, EntryNotFoundError) as error:
        reason = type(error).__name__
        raise ModelNotFound(
            f"model.base {name} can be read neither as a folder nor from Hugging Face ({reason})"
        ) from error
