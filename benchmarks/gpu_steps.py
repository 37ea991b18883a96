"""One training step of SFT and of DPO in plain torch, as our trainers take it, for machines without Ray and DeepSpeed.

The model is a random Mistral made on the device, since time and memory do not depend on the
weights' values. What a step does is what TRL's trainers do under DeepSpeed's bfloat16 at ZeRO-2 with
one worker: adapter weights in the base's precision with a float32 copy in the optimizer, logits of
completion tokens only and in chunks, the gradient's norm clipped. Losses equal TRL's
(tests/benchmarks/test_gpu_training.py). With TRL at hand its own head is used, and with it its
Triton kernels; without, a chunked head in torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK, ALPHA, DROPOUT = 16, 32, 0.05
BETA, LEARNING_RATE, CLIP = 0.1, 1e-4, 1.0
IGNORED = -100
HEAD_TOKENS = 4096
"""Positions whose logits are held at once by the head in torch; TRL's takes as many."""


@dataclass(frozen=True)
class Size:
    """A model, and the batches that it is trained on."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    sequence: int
    """Tokens a row, or a reply with its prompt; every row is full, so there is no padding."""
    completion: int
    """Tokens of it that are learned."""
    rows: int
    """Rows of SFT at once."""
    pairs: int
    """Pairs of DPO at once, twice as many rows."""


SIZES = {
    "7b": Size(4096, 14336, 32, 32, 8, 32000, 2048, 512, 4, 2),
    "tiny": Size(64, 128, 2, 4, 2, 512, 48, 12, 2, 2),
}
"""``7b`` is Mistral-7B v0.2 with the batches of configs/production.yaml."""


def make_model(size: Size, device: torch.device, dtype: torch.dtype, attention: str, *, checkpointing: bool) -> Any:
    """A random Mistral with a fresh LoRA adapter, on ``device``; only the adapter has gradients."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, MistralConfig

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=max(4096, size.sequence),
        sliding_window=None,
        use_cache=False,
    )
    with torch.device(device):  # 14 GB of normal numbers are drawn there and never travel
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    model.to(device)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    lora = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, lora_dropout=DROPOUT, target_modules=TARGETS)
    return get_peft_model(model, lora, autocast_adapter_dtype=False).train()


def sft_batch(size: Size, device: torch.device, seed: int) -> dict[str, torch.Tensor]:
    """Random rows [rows, sequence]; the last ``completion`` tokens have labels."""
    ids = random_ids(size, size.rows, device, seed)
    labels = ids.clone()
    labels[:, : size.sequence - size.completion] = IGNORED
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def dpo_batch(size: Size, device: torch.device, seed: int) -> dict[str, torch.Tensor]:
    """Random pairs [2 x pairs, sequence], chosen first, with the same prompts; labels as in ``sft_batch``."""
    ids = random_ids(size, 2 * size.pairs, device, seed)
    prompt = size.sequence - size.completion
    ids[size.pairs :, :prompt] = ids[: size.pairs, :prompt]
    labels = ids.clone()
    labels[:, :prompt] = IGNORED
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def random_ids(size: Size, rows: int, device: torch.device, seed: int) -> torch.Tensor:
    """Token ids that are no special tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(5, size.vocabulary, (rows, size.sequence), generator=generator).to(device)


Logps = Callable[[Any, dict[str, torch.Tensor]], torch.Tensor]
"""Log-probabilities [rows, sequence - 1] of the tokens that have labels, 0 elsewhere."""


def head_in_torch(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The backbone, then logits of the positions that have labels only, ``HEAD_TOKENS`` at once."""
    causal = model.get_base_model()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    hidden = causal.get_decoder()(**inputs, use_cache=False).last_hidden_state[:, :-1]
    targets = batch["labels"][:, 1:]
    mask = targets != IGNORED
    scored, wanted = hidden[mask], targets[mask]
    weight = causal.get_output_embeddings().weight

    def chunk(states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        logits = functional.linear(states, weight).float()
        return logits.gather(-1, ids[:, None]).squeeze(-1) - logits.logsumexp(-1)

    parts = [
        checkpoint(chunk, scored[at : at + HEAD_TOKENS], wanted[at : at + HEAD_TOKENS], use_reentrant=False)
        for at in range(0, len(wanted), HEAD_TOKENS)
    ]
    found = torch.cat(parts)
    return found.new_zeros(mask.shape).masked_scatter(mask, found)


def head_of_trl(model: Any) -> Logps:
    """TRL's fused head on this model. Raises ImportError where TRL cannot be imported."""
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(model.get_base_model(), outputs=("log_probs",))

    def logps(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        found: torch.Tensor = model(**batch, use_cache=False, fused_lm_head=True).log_probs
        return found

    return logps


def head_for(model: Any, name: str) -> tuple[Logps, str]:
    """The head by name: ``trl``, ``torch``, or ``auto`` for TRL's where it can be imported; and which it is."""
    if name == "torch":
        return head_in_torch, "torch"
    try:
        return head_of_trl(model), "trl"
    except (ImportError, RuntimeError):  # not there, or not with what it needs
        if name == "trl":
            raise
        return head_in_torch, "torch"


def sft_loss(logps: Logps, model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean negative log-likelihood of the completion tokens."""
    return -logps(model, batch).sum() / (batch["labels"][:, 1:] != IGNORED).sum()


def dpo_loss(
    logps: Logps, model: Any, batch: dict[str, torch.Tensor], reference: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean sigmoid loss (Rafailov et al. 2023, eq. 7) against stored log-probabilities [2 x pairs].

    Without them the reference is run in the step, as stock TRL does: here the base with its adapter
    off, which is a little less work than the frozen copy of an adapter that TRL makes where
    training continues one.
    """
    if reference is None:
        reference = reference_logps(logps, model, batch)
    found = logps(model, batch).sum(-1)
    chosen, rejected = (found - reference).chunk(2)
    return -functional.logsigmoid(BETA * (chosen - rejected)).mean()


def reference_logps(logps: Logps, model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the base thinks of each reply [2 x pairs]: one forward pass without gradients."""
    with torch.no_grad(), model.disable_adapter():
        return logps(model, batch).sum(-1)


class MasterWeights:
    """AdamW on float32 copies of the adapter's weights: DeepSpeed's bfloat16 optimizer with one worker."""

    def __init__(self, model: Any):
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.masters = [weight.detach().float().clone().requires_grad_() for weight in self.weights]
        on_gpu = self.weights[0].is_cuda
        self.adamw = torch.optim.AdamW(self.masters, lr=LEARNING_RATE, weight_decay=0.0, fused=on_gpu)

    def step(self) -> torch.Tensor:
        """One step with the gradients' norm clipped; returns the norm before."""
        for master, weight in zip(self.masters, self.weights, strict=True):
            assert weight.grad is not None
            master.grad = weight.grad.float()
            weight.grad = None
        norm = torch.nn.utils.clip_grad_norm_(self.masters, CLIP)
        self.adamw.step()
        with torch.no_grad():
            for master, weight in zip(self.masters, self.weights, strict=True):
                weight.copy_(master)
        return norm


def flops_per_token(model: Any, size: Size) -> float:
    """Model FLOPs of a trained token, as pipelines/training/metrics.py counts them (PaLM, appendix B).

    2 a weight forward and 2 backward, 2 more for weights that are trained, and attention over the
    whole row; nothing for what is computed again.
    """
    every = sum(weight.numel() for weight in model.parameters()) - model.get_input_embeddings().weight.numel()
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return 4.0 * every + 2.0 * trained + 12.0 * size.layers * size.hidden * size.sequence


def done_per_token(model: Any, size: Size, *, checkpointing: bool) -> float:
    """FLOPs that the device really does for a trained token: the layers computed again counted, causal attention
    at half its square, logits of completion tokens only."""
    head = size.vocabulary * size.hidden
    layers = sum(weight.numel() for weight in model.parameters()) - 2 * head
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    passes, attention = (3, 4) if checkpointing else (2, 3)
    scored = size.completion / size.sequence
    return (
        2.0 * passes * layers
        + 2.0 * trained
        + 2.0 * attention * size.layers * size.hidden * size.sequence
        + 6.0 * head * scored  # logits, logits again in the backward pass, and the gradient of the states
    )
