"""The shape of a decoder-only model and its exact numbers of weights, without loading it.

Mistral, Llama, Qwen2 and Qwen3 are one design (RMSNorm, rotary attention with grouped keys, gated
MLP) that differs in biases and norms, so a closed form counts them in no time. Other
architectures are refused: a guess would be worse than no plan.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from configs.errors import ConfigError, ModelNotFound
from configs.settings import Settings
from configs.training import SCRATCH, ScratchModelSettings
from pipelines.training.planner.known import KNOWN, SOURCE

CONFIG = "config.json"
KINDS = ("mistral", "llama", "qwen2", "qwen3")
"""``model_type`` of the configurations whose weights this module counts."""


@dataclass(frozen=True)
class Linear:
    """A linear layer: its width in and out, and whether it adds a bias."""

    width_in: int
    width_out: int
    bias: bool = False

    @property
    def weights(self) -> int:
        """Weights, the bias among them."""
        return self.width_in * self.width_out + self.width_out * self.bias


@dataclass(frozen=True)
class Architecture:
    """What sizes follow from."""

    kind: str
    """``model_type`` of transformers."""
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    """Whether the head is the embedding."""
    attention_bias: bool = False
    mlp_bias: bool = False
    source: str = ""
    """Where these numbers are from, for the reader of a plan."""

    @classmethod
    def of(cls, config: Mapping[str, Any], source: str) -> Self:
        """From a configuration under transformers' names.

        Raises ConfigError for an architecture that is not known here, or a number that is missing.
        """
        kind = str(config.get("model_type"))
        if kind not in KINDS:
            raise ConfigError(f"{source}: the weights of model_type {kind} cannot be counted; {', '.join(KINDS)} can")
        try:
            heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
            return cls(
                kind=kind,
                hidden=hidden,
                layers=int(config["num_hidden_layers"]),
                heads=heads,
                kv_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=int(config.get("head_dim") or hidden // heads),
                intermediate=int(config["intermediate_size"]),
                vocabulary=int(config["vocab_size"]),
                tied=bool(config.get("tie_word_embeddings", False)),
                attention_bias=kind == "qwen2" or bool(config.get("attention_bias", False)),
                mlp_bias=kind == "llama" and bool(config.get("mlp_bias", False)),
                source=source,
            )
        except KeyError as error:
            raise ConfigError(f"{source}: {error.args[0]} is missing") from None

    @property
    def query_width(self) -> int:
        """Width of all queries of a token together."""
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Width of all keys, or values, of a token together."""
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> dict[str, Linear]:
        """The linear layers of one decoder layer, by the names that ``lora.targets`` uses."""
        hidden, bias = self.hidden, self.attention_bias
        return {
            "q_proj": Linear(hidden, self.query_width, bias),
            "k_proj": Linear(hidden, self.key_width, bias),
            "v_proj": Linear(hidden, self.key_width, bias),
            "o_proj": Linear(self.query_width, hidden, bias and self.kind != "qwen2"),
            "gate_proj": Linear(hidden, self.intermediate, self.mlp_bias),
            "up_proj": Linear(hidden, self.intermediate, self.mlp_bias),
            "down_proj": Linear(self.intermediate, hidden, self.mlp_bias),
        }

    @property
    def layer(self) -> int:
        """Weights of one decoder layer."""
        norms = 2 * self.hidden + (2 * self.head_dim if self.kind == "qwen3" else 0)
        return sum(linear.weights for linear in self.linears.values()) + norms

    @property
    def embedding(self) -> int:
        """Weights of the embedding, and of the head."""
        return self.vocabulary * self.hidden

    @property
    def weights(self) -> int:
        """All weights; a tied head counts once."""
        return self.layers * self.layer + self.embedding * (1 if self.tied else 2) + self.hidden

    @property
    def multiplied(self) -> int:
        """Weights that every token is multiplied with: all but an embedding that is only looked up."""
        return self.weights - (0 if self.tied else self.embedding)

    @property
    def largest(self) -> int:
        """Weights of the largest tensor."""
        return max(self.embedding, *(linear.weights for linear in self.linears.values()))

    @property
    def quantised(self) -> int:
        """Weights that QLoRA holds in 4 bits: the matrices of the decoder layers, neither head nor embedding."""
        return self.layers * sum(linear.width_in * linear.width_out for linear in self.linears.values())

    def lora(self, targets: tuple[str, ...], rank: int) -> int:
        """Weights of the adapters of rank ``rank`` on ``targets``: A [rank, in] and B [out, rank] for each layer.

        Raises ConfigError naming the layers there are where no target is one of them.
        """
        found = {name: linear for name, linear in self.linears.items() if name in targets}
        if not found:
            raise ConfigError(
                f"training.lora.targets {', '.join(targets)} name no linear layer of {self.kind}; "
                f"there are {', '.join(self.linears)}"
            )
        return self.layers * sum(rank * (linear.width_in + linear.width_out) for linear in found.values())


def architecture(settings: Settings) -> Architecture:
    """The shape of ``model.base``: of ``scratch``, a folder, a table of known models, or the Hugging Face cache.

    Raises ModelNotFound where none of them knows it, ConfigError for an architecture that is not counted here.
    """
    base = settings.model.base
    if base == SCRATCH:
        return scratch(settings.model.scratch)
    folder = Path(base).expanduser()
    if (folder / CONFIG).is_file():
        return from_file(folder / CONFIG)
    if base in KNOWN:
        return Architecture.of(KNOWN[base], SOURCE)
    if cached := in_cache(base, settings.model.revision):
        return from_file(cached)
    raise ModelNotFound(
        f"model.base {base}: no {CONFIG} in a folder of this name or in the Hugging Face cache, and not in the table "
        f"of known models; give a folder, or one of {', '.join(KNOWN)}"
    )


def scratch(sizes: ScratchModelSettings) -> Architecture:
    """The model made on the spot; its vocabulary may turn out smaller on little text."""
    return Architecture(
        kind="mistral",
        hidden=sizes.hidden_size,
        layers=sizes.layers,
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        head_dim=sizes.hidden_size // sizes.heads,
        intermediate=sizes.intermediate_size,
        vocabulary=sizes.vocabulary,
        tied=True,
        source="model.scratch",
    )


def from_file(path: Path) -> Architecture:
    """The shape in a ``config.json``; raises ConfigError where it is not JSON."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON ({type(error).__name__})") from None
    return Architecture.of(config, str(path))


def in_cache(base: str, revision: str | None) -> Path | None:
    """The configuration of a model that was downloaded before; nothing is fetched."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(base, CONFIG, revision=revision)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None
