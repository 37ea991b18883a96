"""Bytes that autograd keeps between forward and backward, per layer and token, and what the head takes.

Counted from what transformers' decoder layer, PEFT's LoRA layer and TRL's fused head save, tensor by
tensor; checked against torch's own count of live tensors (benchmarks/planner.py). What fused
kernels (``use_kernels``) spare is not counted.
"""

from dataclasses import dataclass

from pipelines.training.planner.model import Architecture

FLOAT = 4
HEAD_TOKENS, HEAD_COLUMNS = 4096, 32768
"""TRL's fused head works on tiles of so many scored tokens and entries of the vocabulary, whatever its size."""
HEAD_TILES_IN_TORCH = 7.25
"""Tiles in float32 that its backward holds at once where Triton does not run: on the CPU; and one of booleans."""
LOSS_COPIES = 3
"""Whole logits in float32 that the plain loss of language modelling holds: log-softmax and two gradients."""
WORKING = 3
"""Gradients as wide as the MLP that are alive while one layer runs backward."""
GROUPS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
"""Linear layers that read the same tensor."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch of a worker; a pair makes two sequences."""

    sequences: int
    length: int
    """Tokens of the longest, which the others are padded to."""
    completion: int
    """Scored tokens of each."""
    padded: bool = True
    """Whether there is padding, and with it an attention mask as large as the scores."""

    @property
    def tokens(self) -> int:
        """Padding included."""
        return self.sequences * self.length

    @property
    def scored(self) -> int:
        """Tokens that the head is computed for."""
        return self.sequences * self.completion


@dataclass(frozen=True)
class Graph:
    """What decides which tensors are kept."""

    element: int
    """Bytes of an activation: 2 in bfloat16, 4 in float32."""
    full: bool
    """All weights are trained, so that every linear layer and norm keeps its input."""
    sharded: bool
    """ZeRO-3, whose linear layers keep their input though their weights are frozen."""
    targets: tuple[str, ...]
    rank: int
    dropout: bool
    checkpointing: bool
    attention: str
    on_gpu: bool


def kept_by_layer(model: Architecture, graph: Graph, batch: Batch) -> float:
    """Bytes that one decoder layer keeps for its backward pass."""
    of_a_token = norms(model, graph) + inputs(model, graph) + attention(model, graph, batch) + mlp(model, graph)
    return of_a_token * batch.tokens + scores(model, graph, batch)


def norms(model: Architecture, graph: Graph) -> float:
    """RMSNorm works in float32 and keeps its input; where its weight is trained, the normalised input too."""
    width = 2 * model.hidden + (model.query_width + model.key_width if model.kind == "qwen3" else 0)
    return width * (FLOAT + (graph.element if graph.full else 0))


def inputs(model: Architecture, graph: Graph) -> float:
    """What linear layers and their adapters keep of their inputs."""
    bytes_, linears = 0.0, model.linears
    for group in GROUPS:
        targets = [] if graph.full else [name for name in group if name in graph.targets]
        width = linears[group[0]].width_in
        if group != ("o_proj",) and (graph.full or graph.sharded or (targets and not graph.dropout)):
            bytes_ += width * graph.element  # o_proj reads what attention keeps anyway
        for _ in targets:
            bytes_ += graph.rank * graph.element
            if graph.dropout:  # on GPUs a mask of one byte, on the CPU the noise itself
                bytes_ += width * (graph.element + (1 if graph.on_gpu else graph.element))
    return bytes_


def attention(model: Architecture, graph: Graph, batch: Batch) -> float:
    """Queries, keys, values and the output; under a mask keys and values are repeated for every head."""
    repeated = graph.attention != "flash_attention_2" and (batch.padded or graph.attention == "eager")
    keys = model.query_width if repeated else model.key_width
    return (2 * model.query_width + 2 * keys) * graph.element + model.heads * FLOAT


def scores(model: Architecture, graph: Graph, batch: Batch) -> float:
    """What grows with the square of the length: the mask, and for ``eager`` the attention weights."""
    square = batch.sequences * batch.length**2
    if graph.attention == "eager":
        return square * model.heads * (FLOAT + graph.element)
    return square * graph.element if batch.padded and not graph.attention.startswith("flash") else 0.0


def mlp(model: Architecture, graph: Graph) -> float:
    """Gate, its activation, and up."""
    return 3 * model.intermediate * graph.element


def kept(model: Architecture, graph: Graph, batch: Batch) -> float:
    """Bytes kept by all layers and the last norm; with checkpointing each layer's input and one layer's rest."""
    layer, width = kept_by_layer(model, graph, batch), model.hidden * batch.tokens
    last = width * (FLOAT + (graph.element if graph.full else 0)) + width * graph.element
    if graph.checkpointing:
        return model.layers * width * graph.element + layer + last
    return model.layers * layer + last


def kept_at_head(model: Architecture, graph: Graph, batch: Batch) -> float:
    """Bytes kept while the head runs: with checkpointing no layer has been computed again yet."""
    spared = kept_by_layer(model, graph, batch) if graph.checkpointing else 0.0
    return kept(model, graph, batch) - spared


def working(model: Architecture, graph: Graph, batch: Batch) -> float:
    """Bytes of gradients that pass through one layer's backward."""
    return WORKING * model.intermediate * batch.tokens * graph.element


def fused_head(model: Architecture, graph: Graph, batch: Batch) -> float:
    """Bytes of TRL's fused head in its backward pass (``trl.kernels.chunked_logprob``)."""
    rows, columns = min(batch.scored, HEAD_TOKENS), min(model.vocabulary, HEAD_COLUMNS)
    tile = rows * (HEAD_COLUMNS if graph.on_gpu else columns) * graph.element  # the CPU keeps what is written to
    in_torch = 0 if graph.on_gpu else HEAD_TILES_IN_TORCH * rows * columns * FLOAT
    hidden = batch.scored * model.hidden * (FLOAT + graph.element)
    return tile + in_torch + hidden + head_gradient(model, graph)


def head_gradient(model: Architecture, graph: Graph) -> float:
    """Where the head is trained, its gradient is summed up in float32."""
    return model.embedding * FLOAT if graph.full else 0.0


def plain_head(model: Architecture, graph: Graph, batch: Batch) -> float:
    """Bytes of the model's own loss over every position, as the base stage computes it."""
    return LOSS_COPIES * batch.tokens * model.vocabulary * FLOAT
