"""Texts to vectors of unit length: a sentence-transformers model from a local folder, or hashed words.

    embedder = load(settings.retrieval.embedder)
    vectors = embedder.encode(["first post", "second post"])        # float32, 2 x embedder.dimensions
    similarities = vectors @ vectors.T                              # cosines

``lexical`` is the default because it is always there. It knows no meaning: it finds texts
that share words. Its fingerprint and a model's go into the index' manifest, so that
vectors of two embedders are never compared.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from configs.errors import ModelNotFound
from configs.retrieval import LEXICAL, EmbedderSettings

Vectors = NDArray[np.float32]
"""n x d, rows of unit length."""
MODULES = "modules.json"
"""The file that makes a folder a sentence-transformers model."""
WEIGHED = {".json", ".txt", ".model", ".safetensors", ".bin"}
"""Endings of the files in a model's folder that change what it computes."""


class Embedder(Protocol):
    """What turns texts into vectors."""

    fingerprint: str
    """SHA-256 (hex) that changes whenever the same text would get another vector."""
    dimensions: int
    """Length d of a vector."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """One row a text, float32, n x d, of unit length; of zeros for a text without a word (``lexical`` only)."""
        ...


def load(settings: EmbedderSettings, *, gpu: bool = False) -> Embedder:
    """The embedder of the settings, a model on the GPU where ``gpu``; raises ModelNotFound as ``fingerprint`` does."""
    if settings.model == LEXICAL:
        return Lexical(settings)
    return SentenceModel(settings, gpu=gpu)


def fingerprint(settings: EmbedderSettings) -> str:
    """SHA-256 (hex) of all that decides a text's vector; reads a model's files and loads nothing.

    Raises ModelNotFound where ``settings.model`` is no folder of a sentence-transformers model.
    """
    if settings.model == LEXICAL:
        return _digest(Lexical.VERSION, str(settings.dimensions))
    folder = model_folder(settings)
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in WEIGHED and path.is_file()]
    parts = [f"{path.relative_to(folder)}:{_content(path, *_state(path))}" for path in files]
    return _digest("sentence-transformers", str(settings.max_tokens), *parts)


def model_folder(settings: EmbedderSettings) -> Path:
    """The model's folder; raises ModelNotFound saying what is wrong with it and what to set."""
    folder = Path(settings.model).expanduser()
    way_out = "set it to the folder of a sentence-transformers model on this machine, or to lexical"
    if not folder.is_dir():
        raise ModelNotFound(f"retrieval.embedder.model: {folder} is not a folder; {way_out}")
    listing = folder / MODULES
    if not listing.is_file():
        raise ModelNotFound(f"retrieval.embedder.model: {folder} holds no {MODULES}; {way_out}")
    try:
        modules = json.loads(listing.read_bytes())
        foreign = [str(m["type"]) for m in modules if not str(m["type"]).startswith("sentence_transformers.")]
    except (ValueError, TypeError, KeyError):
        raise ModelNotFound(f"{listing} is not a list of a sentence-transformers model's modules; {way_out}") from None
    if foreign:
        raise ModelNotFound(f"{listing} asks for code outside sentence-transformers ({foreign[0]}), which is never run")
    return folder


class SentenceModel:
    """A sentence-transformers model from a local folder; nothing is downloaded, no foreign code is run."""

    def __init__(self, settings: EmbedderSettings, *, gpu: bool = False):
        from sentence_transformers import SentenceTransformer

        self.fingerprint = fingerprint(settings)
        folder = str(model_folder(settings))
        device = "cuda" if gpu else "cpu"
        try:
            self.model: Any = SentenceTransformer(folder, device=device, local_files_only=True)
        except Exception as error:
            raise ModelNotFound(
                f"retrieval.embedder.model: {folder} cannot be loaded ({type(error).__name__});"
                " copy the model's folder again, whole"
            ) from error
        if settings.max_tokens:
            self.model.max_seq_length = settings.max_tokens
        self.batch_size = settings.batch_size
        self.dimensions = int(np.asarray(self.model.encode([""], show_progress_bar=False)).shape[1])

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Mean or first-token pooling as the model's folder says, then unit length."""
        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        vectors = self.model.encode(
            list(texts), batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.ascontiguousarray(vectors, dtype=np.float32)


class Lexical:
    """Hashed words (Weinberger et al. 2009), counts dampened by log(1 + n).

    Word pairs beside the words were measured too: slower, and no better at finding posts of the same community.
    """

    VERSION = "lexical-1"

    def __init__(self, settings: EmbedderSettings):
        from sklearn.feature_extraction.text import HashingVectorizer

        self.fingerprint = fingerprint(settings)
        self.dimensions = settings.dimensions
        self.hashing = HashingVectorizer(
            n_features=settings.dimensions, stop_words="english", norm=None, strip_accents="unicode"
        )

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Without the commonest English words, which every post shares."""
        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        counts = self.hashing.transform(list(texts)).astype(np.float32)
        counts.data = np.sign(counts.data) * np.log1p(np.abs(counts.data))
        vectors = counts.toarray()
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


@cache
def _content(path: Path, size: int, changed: int) -> str:
    """The content's hash, read once as long as size and time of change stay."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
