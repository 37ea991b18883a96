"""The plan of ``llumi plan --json``: bytes, hours and dollars as plain numbers, for programs."""

import json
from dataclasses import fields
from typing import Any

from pipelines.training.planner.forecast import Forecast, StagePlan
from pipelines.training.planner.memory import GIB, Memory, Terms
from pipelines.training.planner.options import Option


def as_json(found: Forecast) -> str:
    """The whole plan."""
    here = found.hardware
    return json.dumps(
        {
            "model": {
                "base": found.settings.model.base,
                "weights": found.architecture.weights,
                "trained": found.trained,
                "source": found.architecture.source,
            },
            "hardware": {
                "gpu": here.gpu.name if here.gpu else None,
                "device_bytes": here.room,
                "price": here.price if here.gpu else None,
                "nodes": here.nodes,
                "gpus_per_node": here.gpus_per_node,
                "workers": here.workers,
            },
            "stages": [described(stage, here.room) for stage in found.stages],
            "options": {stage: [choice(one, here.room) for one in table] for stage, table in found.options.items()},
            "gpus": [
                {"gpu": kind.name, "bytes": round(needed), "fits": needed <= kind.memory * GIB}
                | {"hours": hours, "dollars": dollars}
                for kind, needed, hours, dollars in found.elsewhere
            ],
            "disk_bytes": {name: round(size) for name, size in found.disk.items()},
            "assumptions": found.assumptions,
        },
        indent=1,
    )


def described(stage: StagePlan, room: float | None) -> dict[str, Any]:
    """One stage."""
    return {
        "model": stage.model,
        "stage": stage.stage,
        "rows": stage.rows.rows,
        "rows_from": stage.rows.source,
        "steps": stage.steps,
        "tokens": round(stage.tokens),
        "memory_bytes": in_bytes(stage.memory, room),
        "reference_memory_bytes": in_bytes(stage.reading, room) if stage.reading else None,
        "hours": stage.hours,
        "hours_range": [stage.time.shortest, stage.time.longest] if stage.time else None,
        "mfu": stage.time.mfu if stage.time else None,
        "dollars": stage.dollars,
        "checkpoint_bytes": round(stage.checkpoint),
    }


def in_bytes(memory: Memory, room: float | None) -> dict[str, Any]:
    """Terms, total, and whether it fits."""
    terms = {one.name: round(getattr(memory.terms, one.name)) for one in fields(Terms)}
    ends = {"overhead": round(memory.overhead), "total": round(memory.total), "host": round(memory.host)}
    return {**terms, **ends, "moment": memory.moment, "fits": None if room is None else memory.total <= room}


def choice(one: Option, room: float | None) -> dict[str, Any]:
    """One line of the options."""
    return {
        "mode": one.setup.mode,
        "zero_stage": one.setup.zero_stage,
        "offload": one.offload,
        "bytes": {str(size): round(memory.total) for size, memory in one.cells.items()},
        "largest": one.largest,
        "recommended": one.recommended,
    }
