"""One answer on its way from an engine's tokens to pieces; the same for every engine, so that their texts are."""

from collections.abc import Sequence

from pipelines.generation.engine import FinishReason, Logprob, Piece, Sampling, Usage
from pipelines.generation.loaded import Detokenizer
from pipelines.generation.text import Stops, TextStream


class Writing:
    """Turns the tokens of an answer into text, and knows when the answer is over."""

    def __init__(self, detokenizer: Detokenizer, prompt_tokens: int, sampling: Sampling):
        self.prompt_tokens, self.sampling = prompt_tokens, sampling
        self.tokens = 0
        """Tokens of the answer so far."""
        self.finish_reason: FinishReason | None = None
        self._end_ids, self._tokenizer = detokenizer.end_ids, detokenizer.tokenizer
        self._text, self._stops = TextStream(detokenizer.tokenizer), Stops(sampling.stop)
        self._logprobs: list[Logprob] = []

    def add(self, tokens: list[int], logprobs: Sequence[float], *, last: bool) -> Piece | None:
        """What these further tokens add, None while no text is certain; ``logprobs`` are theirs, where asked for."""
        self.tokens += len(tokens)
        if logprobs:
            texts = (self._tokenizer.decode([token], skip_special_tokens=False) for token in tokens)
            self._logprobs += map(Logprob, logprobs, texts)
        text = self._stops.add(self._text.add(tokens))
        if last and not self._stops.met:
            text += self._stops.add(self._text.rest())
        if self._stops.met:
            self.finish_reason = "stop"
        elif last:
            self.finish_reason = "stop" if tokens and tokens[-1] in self._end_ids else "length"
            text += self._stops.rest()
        return self._piece(text) if text or self.finish_reason else None

    def cancelled(self) -> Piece:
        """The last piece of an answer that is not wanted any more."""
        self.finish_reason = "cancelled"
        return self._piece(self._stops.add(self._text.rest()) + self._stops.rest())

    def _piece(self, text: str) -> Piece:
        usage = Usage(self.prompt_tokens, self.tokens)
        if not self.sampling.logprobs:
            return Piece(text, usage, self.finish_reason)
        logprobs, self._logprobs = tuple(self._logprobs), []
        return Piece(text, usage, self.finish_reason, logprobs)
