"""The planner's memory formula beside what real training takes, on the CPU: predicted / measured.

Models of 40 to 60 million weights, large enough that they outweigh what every process holds. Each
shape is trained for three steps by our trainers on DeepSpeed, twice: once counted by torch's
profiler (bytes of live tensors, which is what the formula is about and a GPU would hold too) and
once by the kernel (the resident set, which is what a node runs out of).
"""

from typing import Any

from benchmarks.planner_shapes import MB, Shape, measure, settings_of
from pipelines.training.planner.activations import Batch
from pipelines.training.planner.memory import CpuOverhead, Memory, memory
from pipelines.training.planner.model import Architecture
from pipelines.training.planner.setup import Setup

SIZES = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 16000,
    "tie_word_embeddings": False,
}
WIDE = {**SIZES, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 4, "vocab_size": 36000}
SHAPES = (
    Shape("sft lora zero-0", sizes=SIZES, training={"zero_stage": 0}),
    Shape("sft lora zero-2", sizes=SIZES, training={"zero_stage": 2}),
    Shape("sft lora zero-3", sizes=SIZES, training={"zero_stage": 3}),
    Shape(
        "sft lora zero-2 bf16 checkpointing",
        sizes=SIZES,
        micro_batch=2,
        training={"zero_stage": 2, "bf16": True, "gradient_checkpointing": True},
    ),
    Shape(
        "dpo lora zero-2 no dropout",
        "dpo",
        SIZES,
        {"zero_stage": 2, "lora": {"dropout": 0.0}},
        micro_batch=2,
        prompt=128,
        completion=128,
    ),
    Shape("dpo lora zero-3 wide bf16", "dpo", WIDE, {"zero_stage": 3, "bf16": True}, prompt=192, completion=64),
    Shape(
        "dpo lora zero-2 checkpointing", "dpo", SIZES, {"zero_stage": 2, "gradient_checkpointing": True}, micro_batch=2
    ),
    Shape("sft full zero-0", sizes=SIZES, training={"zero_stage": 0, "mode": "full"}, prompt=64, completion=64),
    Shape("sft full zero-1 bf16", sizes=SIZES, training={"zero_stage": 1, "mode": "full", "bf16": True}, completion=64),
    Shape("sft full zero-2", sizes=SIZES, training={"zero_stage": 2, "mode": "full"}),
    Shape("dpo full zero-3 bf16", "dpo", SIZES, {"zero_stage": 3, "mode": "full", "bf16": True}, completion=64),
    Shape("lm zero-2", "lm", SIZES, {"zero_stage": 2}, prompt=128, completion=128),
    Shape("lm zero-2 two workers", "lm", SIZES, {"zero_stage": 2}, prompt=128, completion=128, workers=2),
    Shape("lm zero-3 two workers", "lm", SIZES, {"zero_stage": 3}, prompt=128, completion=128, workers=2),
)


def predict(shape: Shape) -> Memory:
    """What the planner says of a shape."""
    settings = settings_of(shape)
    stage = {"lm": settings.training.base, "sft": settings.training.sft, "dpo": settings.training.dpo1}[shape.task]
    sequences = shape.micro_batch * (2 if shape.task == "dpo" else 1)
    batch = Batch(sequences, shape.prompt + shape.completion, shape.completion, padded=shape.micro_batch > 1)
    model = Architecture.of({"model_type": "mistral", **shape.sizes}, "the benchmark's shape")
    return memory(model, Setup.of(settings, shape.task, stage), batch)  # type: ignore[arg-type]


def compare(shape: Shape, what: str) -> dict[str, Any]:
    """MB predicted and measured, of ``tensors`` or ``resident`` above the imports, and their ratio."""
    plan, measured = predict(shape), measure(shape, what)["peak"]
    predicted = plan.terms.tensors if what == "tensors" else plan.total - CpuOverhead().imports
    return {
        "predicted_mb": round(predicted / MB),
        "measured_mb": round(measured / MB),
        "ratio": round(predicted / measured, 3),
        "moment": plan.moment,
    }


def run() -> dict[str, object]:
    """Every shape, and the ratio that is furthest from 1."""
    shapes = {shape.name: {what: compare(shape, what) for what in ("tensors", "resident")} for shape in SHAPES}
    return {
        "predicted / measured": shapes,
        **{
            f"furthest from 1, {what}": max((one[what]["ratio"] for one in shapes.values()), key=lambda r: abs(r - 1))
            for what in ("tensors", "resident")
        },
    }
