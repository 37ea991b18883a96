"""The slot for a model that recognises names of people, which no pattern finds.

It holds presidio (``pip install 'llumi[names]'``) on a spaCy model that the user supplies,
by name or by path: none is shipped and none is fetched. Presidio scores what it finds;
what reaches the threshold becomes a placeholder. A model costs: without one 50,000 texts a
second and more are scrubbed on a core, with presidio some hundreds.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from configs.corpus import NameSettings
from configs.errors import UsageError


class Recogniser:
    """A presidio engine; ``replace`` maps texts to texts."""

    def __init__(self, engine: Any, settings: NameSettings):
        self.engine, self.settings = engine, settings

    def replace(self, texts: Sequence[str]) -> list[str]:
        """The texts with each entity found as ``[NAME]``, or as its own kind where others than PERSON are asked for."""
        found = self.engine.analyze_iterator(
            texts,
            language=self.settings.language,
            batch_size=self.settings.batch,
            entities=list(self.settings.entities),
            score_threshold=self.settings.threshold,
        )
        return [placeholders(text, results) for text, results in zip(texts, found, strict=True)]


def placeholders(text: str, results: Sequence[Any]) -> str:
    """``text`` with the spans of ``results`` (entity_type, start, end, score) replaced; the surer where two meet."""
    taken: list[Any] = []
    for result in sorted(results, key=lambda r: (-r.score, r.start, -r.end)):
        if all(result.end <= other.start or result.start >= other.end for other in taken):
            taken.append(result)
    for result in sorted(taken, key=lambda r: r.start, reverse=True):
        kind = "NAME" if result.entity_type == "PERSON" else result.entity_type
        text = f"{text[: result.start]}[{kind}]{text[result.end :]}"
    return text


@cache
def recogniser(settings: NameSettings) -> Recogniser:
    """The recogniser, loaded once a process; raises UsageError where presidio or the model is not there."""
    try:
        from presidio_analyzer import AnalyzerEngine, BatchAnalyzerEngine
        from presidio_analyzer.nlp_engine import SpacyNlpEngine
    except ImportError:
        raise UsageError(
            "corpus.scrub.names asks for presidio, which is not installed: pip install 'llumi[names]', or set"
            " corpus.scrub.names=null to go without names"
        ) from None
    import spacy

    class Local(SpacyNlpEngine):
        """Presidio's spaCy engine with the model that is there, where presidio would fetch one."""

        def load(self) -> None:
            self.nlp = {settings.language: spacy.load(settings.model)}

    engine = Local(models=[{"lang_code": settings.language, "model_name": settings.model}])
    try:
        engine.load()
    except OSError:
        raise UsageError(
            f"corpus.scrub.names.model: {settings.model} is neither an installed spaCy model nor a folder with one"
        ) from None
    if "ner" not in engine.nlp[settings.language].pipe_names:
        raise UsageError(
            f"corpus.scrub.names.model: {settings.model} recognises no entities: it has no component `ner`"
        )
    analyzer = AnalyzerEngine(nlp_engine=engine, supported_languages=[settings.language])
    return Recogniser(BatchAnalyzerEngine(analyzer), settings)
