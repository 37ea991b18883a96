"""One answer of the transformers engine on its way from the loop's outputs to pieces."""

from typing import Any

from configs.errors import EngineError
from pipelines.generation.engine import FinishReason, Piece, Usage
from pipelines.generation.loaded import LoadedModel
from pipelines.generation.sampler import Drawing
from pipelines.generation.text import Stops, TextStream


class Writing:
    """Turns each output of the loop into a piece, and knows when the answer is over."""

    def __init__(self, loaded: LoadedModel, drawing: Drawing):
        self.drawing = drawing
        self.finish_reason: FinishReason | None = None
        self.ended = False
        """The loop itself is done with the request."""
        self._end_ids = loaded.end_ids
        self._text, self._stops = TextStream(loaded.tokenizer), Stops(drawing.sampling.stop)
        self._new = self._told = 0

    def piece(self, output: Any) -> Piece | None:
        """What ``output`` adds, None while no text is certain; an output of None cancels. Raises EngineError."""
        if output is None:
            self.finish_reason = "cancelled"
            return self._made(self._stops.add(self._text.rest()) + self._stops.rest())
        self.ended = output.is_finished()
        if output.error is not None:
            raise EngineError("the engine failed while it generated; see the log of its replica")
        tokens: list[int] = output.generated_tokens
        text = self._stops.add(self._text.add(tokens[self._new :]))
        self._new = len(tokens)
        if self.ended and not self._stops.met:
            text += self._stops.add(self._text.rest())
        if self._stops.met:
            self.finish_reason = "stop"
        elif self.ended:
            self.finish_reason = "stop" if tokens and tokens[-1] in self._end_ids else "length"
            text += self._stops.rest()
        return self._made(text) if text or self.finish_reason else None

    def _made(self, text: str) -> Piece:
        usage = Usage(self.drawing.prompt_tokens, self._new)
        if not self.drawing.sampling.logprobs:
            return Piece(text, usage, self.finish_reason)
        told, self._told = self._told, self._new
        return Piece(text, usage, self.finish_reason, tuple(self.drawing.logprobs[told : self._new]))
