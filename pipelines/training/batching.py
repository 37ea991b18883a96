"""Which ways of bringing rows into batches a run can take, checked before any worker starts.

``padding_free`` and ``packed`` lay a micro-batch's rows end to end and keep attention within
each. transformers does that for FlashAttention by cumulative lengths. With other attention it
would build a mask of all tokens by all tokens, which is right and costs more than padding does;
so there they are refused. TRL 1.16 has neither for DPO: DPO stages group by length instead.
"""

import re

from configs.errors import ConfigError
from configs.training import TrainingSettings

WITHOUT_PADDING = ("padding_free", "packed")
FLASH = re.compile(r"flash[_-]?attn?(ention)?[_-]?[23]?", re.IGNORECASE)
"""``flash_attention_2`` and ``_3``, and the hub's kernels of them, such as ``kernels-community/flash-attn3``."""


def without_padding(training: TrainingSettings) -> bool:
    """Whether SFT's rows are laid end to end."""
    return training.batching in WITHOUT_PADDING


def check(training: TrainingSettings, attention: str) -> None:
    """Raises ConfigError naming the setting that cannot be had, the reason and the way out."""
    wanted = f"training.batching: {training.batching}"
    if without_padding(training):
        if not FLASH.search(attention):
            raise ConfigError(
                f"{wanted} needs FlashAttention, and model.attention is {attention}, which would build a mask of all "
                "tokens by all tokens; set model.attention to flash_attention_2, or training.batching to length_grouped"
            )
        if not training.gpus_per_worker:
            raise ConfigError(
                f"{wanted} needs FlashAttention, which has no CPU; set training.gpus_per_worker above 0, or "
                "training.batching to length_grouped"
            )
    if training.ingest == "stream" and training.batching == "packed":
        raise ConfigError(
            f"{wanted} chooses rows from all over the set, which training.ingest: stream does not read; set "
            "training.batching to padding_free, or training.ingest to memory_map"
        )
