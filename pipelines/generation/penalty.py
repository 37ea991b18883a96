"""The repetition penalty of Keskar et al. (2019) for continuous batching.

Continuous batching hands a processor only each sequence's last token, so transformers drops
its own penalty there. This one looks at the requests themselves, which is sound as long as
batches are prepared and run one after the other (``use_async_batching=False``, no graphs).
"""

from typing import Any

import torch
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor

KEY = "repetition_penalty"


class RepetitionPenalty(ContinuousBatchingLogitsProcessor):
    """Divides (below zero: multiplies) the logits of the tokens that a request already holds."""

    supported_kwargs = {KEY: float}  # noqa: RUF012  (the base class declares it so)
    ignored_kwargs = ()

    def __init__(self) -> None:
        self._states: list[Any] = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """One request's default: no penalty."""
        int32_tensor.copy_(torch.ones_like(int32_tensor, dtype=torch.float32).view(dtype=torch.int32))

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """Keep the requests of the batch for the call that follows; their penalties as bits of int32."""
        self._states = [request.state for request in requests_with_new_token]
        penalties = [state.logit_processor_kwargs.get(KEY, 1.0) for state in self._states]
        return torch.tensor(penalties, dtype=torch.float32).view(dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Scores [tokens, vocabulary] with the penalty applied row by row."""
        for row, state in enumerate(self._states):
            penalty = state.logit_processor_kwargs.get(KEY, 1.0)
            if penalty == 1.0:
                continue
            held = torch.tensor(state.initial_tokens + state.generated_tokens, device=scores.device).unique()
            old = scores[row, held]
            scores[row, held] = torch.where(old < 0, old * penalty, old / penalty)
        return scores


def install(manager: Any) -> None:
    """Put the penalty before all other processors of a manager that is not started yet."""
    processors = manager.logit_processor
    processors.logits_processor.insert(0, RepetitionPenalty())
    processors.tensors_required += 1
    processors.supported_keys[KEY] = float
    processors.do_processing = True
