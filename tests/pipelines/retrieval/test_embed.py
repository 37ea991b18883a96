"""Vectors of texts, their fingerprint, and folders that hold no model."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from configs.errors import ModelNotFound
from configs.retrieval import EmbedderSettings
from pipelines.retrieval import embed

EXAM, TEST, FRIDGE = (
    "I failed my chemistry exam and feel terrible",
    "How do I deal with flunking an orgo test?",
    "Where can I buy a cheap fridge for my dorm?",
)


@pytest.fixture(scope="module")
def model(minilm: Path) -> embed.Embedder:
    """The real model, loaded once."""
    return embed.load(EmbedderSettings(model=str(minilm)))


def weightless(folder: Path, minilm: Path) -> Path:
    """A copy of the model's folder whose weights are a few bytes: enough for a fingerprint."""
    shutil.copytree(minilm, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_model_gives_unit_vectors_by_which_other_words_for_the_same_are_near(model: embed.Embedder) -> None:
    vectors = model.encode([EXAM, TEST, FRIDGE])
    assert vectors.dtype == np.float32 and vectors.shape == (3, model.dimensions) == (3, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    similar = vectors @ vectors.T
    assert similar[0, 1] > similar[0, 2] + 0.2


def test_a_models_vector_does_not_depend_on_its_neighbours_in_the_batch(model: embed.Embedder) -> None:
    together, alone = model.encode([FRIDGE, EXAM + " and" * 60, TEST])[2], model.encode([TEST])[0]
    assert np.allclose(together, alone, atol=1e-4)


def test_lexical_gives_unit_vectors_by_which_shared_words_are_near() -> None:
    lexical = embed.load(EmbedderSettings())
    vectors = lexical.encode([EXAM, "Chemistry exam: I failed!", FRIDGE])
    assert vectors.dtype == np.float32 and vectors.shape == (3, lexical.dimensions) == (3, 1024)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    similar = vectors @ vectors.T
    assert similar[0, 1] > 0.5 > 0.1 > abs(similar[0, 2])


def test_a_text_without_a_word_is_like_nothing() -> None:
    vectors = embed.load(EmbedderSettings()).encode(["", "!!!", EXAM])
    assert not vectors[:2].any() and np.isfinite(vectors).all()


@pytest.mark.parametrize("kind", ["lexical", "model"])
def test_no_texts_give_no_vectors(kind: str, request: pytest.FixtureRequest) -> None:
    embedder = embed.load(EmbedderSettings()) if kind == "lexical" else request.getfixturevalue("model")
    assert embedder.encode([]).shape == (0, embedder.dimensions)


def test_a_fingerprint_stays_when_the_folder_is_copied_and_changes_with_weights_and_settings(
    tmp_path: Path, minilm: Path
) -> None:
    one, other = weightless(tmp_path / "one", minilm), weightless(tmp_path / "other", minilm)
    first = embed.fingerprint(EmbedderSettings(model=str(one)))
    assert embed.fingerprint(EmbedderSettings(model=str(other))) == first
    assert embed.fingerprint(EmbedderSettings(model=str(one), max_tokens=64)) != first
    assert embed.fingerprint(EmbedderSettings(model=str(one), batch_size=7)) == first
    (other / "README.md").write_text("about")
    assert embed.fingerprint(EmbedderSettings(model=str(other))) == first
    (other / "model.safetensors").write_bytes(b"weighty")
    assert embed.fingerprint(EmbedderSettings(model=str(other))) != first
    assert embed.fingerprint(EmbedderSettings(dimensions=512)) != embed.fingerprint(EmbedderSettings())


def test_the_fingerprint_of_the_settings_is_the_embedders(model: embed.Embedder, minilm: Path) -> None:
    assert model.fingerprint == embed.fingerprint(EmbedderSettings(model=str(minilm)))


def test_a_limit_of_tokens_cuts_texts_off(minilm: Path, model: embed.Embedder) -> None:
    short = embed.load(EmbedderSettings(model=str(minilm), max_tokens=8))
    long_text = EXAM + " " + FRIDGE
    assert np.allclose(short.encode([long_text])[0], short.encode([long_text + " and a sofa"])[0], atol=1e-5)
    assert not np.allclose(model.encode([long_text])[0], model.encode([long_text + " and a sofa"])[0], atol=1e-2)


def test_a_folder_that_is_not_there_is_refused_with_the_way_out() -> None:
    with pytest.raises(
        ModelNotFound, match=r"retrieval\.embedder\.model: /no/such is not a folder; set it to .*lexical"
    ):
        embed.load(EmbedderSettings(model="/no/such"))


def test_a_folder_without_modules_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelNotFound, match=r"holds no modules\.json"):
        embed.fingerprint(EmbedderSettings(model=str(tmp_path)))


@pytest.mark.parametrize("listing", ["not json", "[1]", '[{"type": null}]', '{"a": 1}'])
def test_modules_that_are_no_list_of_modules_are_refused(tmp_path: Path, listing: str) -> None:
    (tmp_path / "modules.json").write_text(listing)
    with pytest.raises(ModelNotFound, match=r"modules\.json"):
        embed.model_folder(EmbedderSettings(model=str(tmp_path)))


def test_a_model_that_brings_code_of_its_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text('[{"type": "custom_st.Transformer"}]')
    with pytest.raises(ModelNotFound, match=r"code outside sentence-transformers \(custom_st\.Transformer\)"):
        embed.load(EmbedderSettings(model=str(tmp_path)))


def test_damaged_weights_are_named_by_their_folder(tmp_path: Path, minilm: Path) -> None:
    folder = weightless(tmp_path / "damaged", minilm)
    with pytest.raises(ModelNotFound, match=r"damaged cannot be loaded .* copy the model's folder again"):
        embed.load(EmbedderSettings(model=str(folder)))
