"""The slot for a model that finds names: presidio where it is installed, and what is said where it is not."""

import importlib.util
from pathlib import Path

import pyarrow as pa
import pytest

from configs.corpus import ScrubSettings
from configs.errors import UsageError
from pipelines.corpus import names, scrub_report
from pipelines.corpus.scrub import scrub, scrub_column

HAVE_PRESIDIO = importlib.util.find_spec("presidio_analyzer") is not None


def settings_with(model: Path | str, **changes: object) -> ScrubSettings:
    """Settings that name the model."""
    return ScrubSettings(names={"model": str(model)} | changes)


@pytest.mark.skipif(HAVE_PRESIDIO, reason="presidio is installed")
def test_without_presidio_the_error_says_how_to_get_it_and_how_to_go_without() -> None:
    with pytest.raises(UsageError, match=r"pip install 'llumi\[names\]', or set corpus\.scrub\.names=null"):
        scrub_report.check(settings_with("en_core_web_sm"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A spaCy model on disk whose ``ner`` knows two names by heart."""
    pytest.importorskip("presidio_analyzer")
    import spacy

    language = spacy.blank("en")
    known = [{"label": "PERSON", "pattern": "Maria"}, {"label": "PERSON", "pattern": "Tom Barker"}]
    language.add_pipe("entity_ruler", name="ner").add_patterns(known)
    language.to_disk(tmp_path / "model")
    return tmp_path / "model"


def test_names_that_the_model_finds_become_placeholders_in_texts_and_columns(model: Path) -> None:
    settings = settings_with(model)
    assert scrub("tell Maria, u/abc and Tom Barker", settings) == "tell [NAME], [USER] and [NAME]"
    column = pa.array(["hi Maria", None, "a@b.org", "Marian"])
    assert scrub_column(column, settings).to_pylist() == ["hi [NAME]", None, "[EMAIL]", "Marian"]


def test_with_a_model_the_report_states_what_it_finds(model: Path) -> None:
    assert scrub_report.report(settings_with(model))["NAME"]["recall"] == 0.1


def test_a_model_that_is_not_there_and_one_without_entities_are_refused(model: Path, tmp_path: Path) -> None:
    import spacy

    with pytest.raises(UsageError, match="neither an installed spaCy model nor a folder"):
        scrub_report.check(settings_with(tmp_path / "nowhere"))
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(UsageError, match="has no component `ner`"):
        scrub_report.check(settings_with(tmp_path / "blank"))


class Found:
    """A span as presidio gives it."""

    def __init__(self, entity_type: str, start: int, end: int, score: float):
        self.entity_type, self.start, self.end, self.score = entity_type, start, end, score


def test_of_two_spans_that_overlap_the_surer_is_replaced() -> None:
    spans = [Found("PERSON", 0, 5, 0.6), Found("LOCATION", 3, 9, 0.9), Found("PERSON", 10, 13, 0.7)]
    assert names.placeholders("Maria Rio Ann", spans) == "Mar[LOCATION] [NAME]"
