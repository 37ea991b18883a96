"""Similar posts with well-received replies, for the prompt of one request.

They help a draft and are never needed for it: an index that cannot be read, or takes longer
than ``TIMEOUT_S``, costs the examples and not the answer. Lookups run one at a time in a thread
of their own, so that embedding a post never holds up the event loop.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Self

from configs.api import ApiSettings
from configs.retrieval import LEXICAL, RetrievalSettings
from pipelines.retrieval.embed import Embedder, Vectors
from pipelines.retrieval.lookup import Example, Lookup, Query, open_lookup

TIMEOUT_S = 2.0
"""Seconds after which an answer does without examples."""
FOR_SERVING = 2
"""Examples where the index was built for the service alone and no number is configured."""
LOG = logging.getLogger("ray.serve")


class OneAtATime:
    """An embedder for several threads: the tokenizers of transformers fail where two use one at once."""

    def __init__(self, embedder: Embedder):
        self.embedder = embedder
        self.fingerprint, self.dimensions = embedder.fingerprint, embedder.dimensions
        self._lock = Lock()

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See ``Embedder.encode``."""
        with self._lock:
            return self.embedder.encode(texts)


class Retrieval:
    """Examples for posts, at most ``most`` of them with at most ``room`` tokens together."""

    def __init__(
        self, lookup: Lookup, size: Callable[[str], int], *, most: int, room: int, embedder: Embedder | None = None
    ):
        self.lookup, self.size, self.most, self.room = lookup, size, most, room
        self.embedder = embedder
        """What posts are compared by, where it is a model that knows meaning; else None."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="retrieval")

    @classmethod
    def open(cls, folder: Path, retrieval: RetrievalSettings, api: ApiSettings, model: str) -> Self:
        """Over the index in ``folder``, counting tokens as ``model`` does; raises as ``open_lookup`` does."""
        most = api.examples if api.examples is not None else retrieval.examples or FOR_SERVING
        lookup = open_lookup(folder, retrieval)
        assert lookup.embedder is not None
        lookup.embedder = OneAtATime(lookup.embedder)
        embedder = None if retrieval.embedder.model == LEXICAL else lookup.embedder
        return cls(lookup, tokens_of(model), most=most, room=api.max_example_tokens, embedder=embedder)

    async def similar(self, post: str) -> list[Example]:
        """The examples for a post, none where the lookup fails."""
        if not self.most:
            return []
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await loop.run_in_executor(self._thread, self._look_up, post)
        except Exception as error:
            # By type only: the error may quote the post.
            LOG.warning("similar posts could not be looked up: %s", type(error).__name__)
            return []

    def _look_up(self, post: str) -> list[Example]:
        return self.lookup.similar([Query(post)], most=self.most, size=self.size, room=self.room)[0]


def tokens_of(model: str) -> Callable[[str], int]:
    """A count of tokens by a model's tokenizer: a local folder, or a name that transformers knows."""
    file = Path(model) / "tokenizer.json"
    if file.is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(file))
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
    from pipelines.training.weights import load_tokenizer

    known = load_tokenizer(model, None)
    return lambda text: len(known(text, add_special_tokens=False)["input_ids"])
