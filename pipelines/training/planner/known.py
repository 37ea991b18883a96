"""Shapes of well-known models, so that they can be planned for without a network.

Numbers of each model's ``config.json`` on Hugging Face, by ``model.base``; a folder with a
``config.json``, or a model in this machine's Hugging Face cache, is read instead of this table.
"""

from collections.abc import Mapping
from typing import Any

SOURCE = "its config.json (bundled)"


def shape(
    kind: str, hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int, vocabulary: int, **rest: Any
) -> dict[str, Any]:
    """The part of a configuration that sizes follow from, under transformers' names."""
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": intermediate,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
        **rest,
    }


KNOWN: Mapping[str, Mapping[str, Any]] = {
    "mistralai/Mistral-7B-Instruct-v0.2": shape("mistral", 4096, 32, 32, 8, 14336, 32000),
    "mistralai/Mistral-7B-Instruct-v0.3": shape("mistral", 4096, 32, 32, 8, 14336, 32768),
    "mistralai/Mistral-Nemo-Instruct-2407": shape("mistral", 5120, 40, 32, 8, 14336, 131072, head_dim=128),
    "meta-llama/Llama-3.1-8B-Instruct": shape("llama", 4096, 32, 32, 8, 14336, 128256),
    "meta-llama/Llama-3.1-70B-Instruct": shape("llama", 8192, 80, 64, 8, 28672, 128256),
    "meta-llama/Llama-3.2-1B-Instruct": shape(
        "llama", 2048, 16, 32, 8, 8192, 128256, head_dim=64, tie_word_embeddings=True
    ),
    "meta-llama/Llama-3.2-3B-Instruct": shape(
        "llama", 3072, 28, 24, 8, 8192, 128256, head_dim=128, tie_word_embeddings=True
    ),
    "Qwen/Qwen2.5-0.5B-Instruct": shape("qwen2", 896, 24, 14, 2, 4864, 151936, tie_word_embeddings=True),
    "Qwen/Qwen2.5-1.5B-Instruct": shape("qwen2", 1536, 28, 12, 2, 8960, 151936, tie_word_embeddings=True),
    "Qwen/Qwen2.5-7B-Instruct": shape("qwen2", 3584, 28, 28, 4, 18944, 152064),
    "Qwen/Qwen2.5-14B-Instruct": shape("qwen2", 5120, 48, 40, 8, 13824, 152064),
    "Qwen/Qwen2.5-32B-Instruct": shape("qwen2", 5120, 64, 40, 8, 27648, 152064),
    "Qwen/Qwen3-8B": shape("qwen3", 4096, 36, 32, 8, 12288, 151936, head_dim=128),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": shape("llama", 2048, 24, 32, 32, 8192, 49152, tie_word_embeddings=True),
}
