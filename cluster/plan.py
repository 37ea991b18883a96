"""``llumi plan CONFIG``: what training will take, as tables for people; ``plan_json`` has the same for programs.

Readable at 100 columns; where output is piped, rich leaves colours out and tables stay plain text.
"""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from configs.errors import UsageError
from configs.settings import Settings
from configs.training import StageName
from pipelines.training.planner.forecast import GPUS_PER_NODE, Forecast, Hardware, StagePlan, forecast
from pipelines.training.planner.gpus import DEFAULT, gpu
from pipelines.training.planner.memory import GIB, Memory, Terms
from pipelines.training.planner.options import MICRO_BATCHES, SAFE, Option
from pipelines.training.planner.speed import Time

WIDTH = 100
WORTH = 0.95
"""Offloading is shown where it leaves less than this share of the memory."""
SHOWN = (1, 2, 4, 8)
"""Micro-batches among the columns."""
TERMS = {
    "weights": "weights",
    "gradients": "grads",
    "optimizer": "optim.",
    "activations": "activ.",
    "head": "head",
    "gathered": "ZeRO",
}
"""Headings of the terms of memory."""


def plan(
    settings: Settings,
    *,
    name: str | None,
    nodes: int | None,
    gpus_per_node: int | None,
    price: float | None,
    rows: int | None,
) -> Forecast:
    """The plan for a configuration on its own workers, or on ``nodes`` x ``gpus_per_node`` GPUs of a kind.

    Raises UsageError for a GPU that is not known, or a price without one.
    """
    training = settings.training
    if name is None and training.gpus_per_worker == 0:
        if nodes or gpus_per_node or price is not None:
            raise UsageError("this configuration trains on CPUs; name a GPU with --gpu, for example --gpu H100")
        return forecast(settings, Hardware(None, 0.0, None, None, training.most_workers), rows)
    kind = gpu(name or DEFAULT)
    update: dict[str, Any] = {"gpus_per_worker": training.gpus_per_worker or 1.0}
    if nodes or gpus_per_node:
        gpus_per_node = gpus_per_node or GPUS_PER_NODE
        update["workers"] = (nodes or 1) * gpus_per_node
    changed = settings.model_copy(update={"training": training.model_copy(update=update)})
    workers = changed.training.most_workers
    at_once = gpus_per_node or min(workers, GPUS_PER_NODE)
    there = Hardware(kind, kind.price if price is None else price, nodes or -(-workers // at_once), at_once, workers)
    return forecast(changed, there, rows)


def show(found: Forecast, console: Console) -> None:
    """Print it."""
    console.print(Group(*report(found)), soft_wrap=False)


def printed() -> Console:
    """Where a plan goes: standard output, 100 columns wide where nothing says otherwise."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def report(found: Forecast) -> Iterable[RenderableType]:
    """The parts of a plan, in order."""
    yield head(found)
    yield memory_table(found)
    if found.hardware.gpu:
        yield time_table(found)
        yield elsewhere(found)
        for stage, table in found.options.items():
            yield options_table(found, stage, table)
    yield disk_table(found)
    for line in found.assumptions:
        yield Text(f"- {line}")


def head(found: Forecast) -> Text:
    """Model and hardware in two lines."""
    model, training, here = found.architecture, found.settings.training, found.hardware
    share = f"{100 * found.trained / model.weights:.2g} %" if training.mode != "full" else "all"
    ways = [training.mode, f"ZeRO-{training.zero_stage}", "bf16" if training.bf16 else "float32"]
    ways += ["checkpointing"] if training.gradient_checkpointing else []
    lines = [
        f"{found.settings.model.base}: {model.weights:,} weights, {found.trained:,} trained ({share})",
        f"{', '.join(ways)}; rows up to {training.max_length} tokens; sizes from {model.source}",
    ]
    if here.gpu:
        lines.append(
            f"{here.workers} workers on {here.nodes} x {here.gpus_per_node} {here.gpu.name}: {here.gpu.memory:g} GiB, "
            f"{here.gpu.peak / 1e12:g} TFLOP/s bf16, ${here.price:.2f} an hour each"
        )
    else:
        lines.append(f"{here.workers} workers on CPUs")
    return Text("\n".join(lines))


def titled(title: str, *columns: str) -> Table:
    """A table whose first column is words and whose others are numbers."""
    heading = Text(title, style="bold")
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=not number)
    return table


def memory_table(found: Forecast) -> Table:
    """Memory by term for each stage of one model; both models' stages are alike but for their longest rows."""
    what = "GPU" if found.hardware.gpu else "worker"
    table = titled(f"Memory of a {what}, GiB", "", "batch", *TERMS.values(), "other", "total", "fits", "host")
    lines: dict[tuple[str, ...], list[str]] = {}
    model = largest_model(found)
    for stage in found.stages:
        if stage.model != model:
            continue
        own = getattr(found.settings.training, stage.stage)
        batch = f"{own.micro_batch} {'pairs' if stage.task == 'dpo' else 'rows'}"
        host = f"{stage.memory.host / GIB:.1f}" if stage.memory.host else ""
        lines.setdefault((batch, *amounts(stage.memory), *verdict(found, stage.memory), host), []).append(stage.stage)
        if stage.reading:
            read = ("", *amounts(stage.reading), *verdict(found, stage.reading), "")
            lines.setdefault(read, ["reference"])
    for cells, names in lines.items():
        table.add_row(", ".join(names), *cells)
    return table


def largest_model(found: Forecast) -> str:
    """The model whose stages take most."""
    return max(found.stages, key=lambda stage: stage.memory.total).model


def amounts(memory: Memory) -> list[str]:
    """Each term in GiB."""
    parts = [getattr(memory.terms, one.name) for one in fields(Terms)]
    return [f"{size / GIB:.1f}" if size >= 0.05 * GIB else "-" if not size else "<0.1" for size in parts] + [
        f"{memory.overhead / GIB:.1f}"
    ]


def verdict(found: Forecast, memory: Memory) -> list[str]:
    """The total, and whether it fits."""
    room = found.hardware.room
    return [f"{memory.total / GIB:.1f}", "" if room is None else fits(memory.total, room)]


def fits(needed: float, room: float) -> str:
    """In a word; what is nearer to the limit than the formula is sure of is tight."""
    return "NO" if needed > room else "tight" if needed > SAFE * room else "yes"


def time_table(found: Forecast) -> Table:
    """Hours and dollars by stage."""
    columns = ("", "rows", "tokens", "steps", "tokens/s", "MFU", "hours", "range", "$")
    table = titled(f"Time on {found.hardware.workers} x {found.hardware.gpu.name}", *columns)  # type: ignore[union-attr]
    for stage in found.stages:
        name = f"{stage.model} {stage.stage}"
        if stage.reading_time:
            tokens = stage.rows.scored()
            table.add_row(f"{name} reference", count(stage), millions(tokens), "", *rates(stage.reading_time))
        if stage.time:
            steps = f"{stage.steps:,}"
            table.add_row(name, count(stage), millions(stage.tokens), steps, *rates(stage.time))
    hours, dollars = (sum(getattr(stage, what) for stage in found.stages) for what in ("hours", "dollars"))
    table.add_section()
    table.add_row("all", "", "", "", "", "", f"{hours:.1f}", "", f"{dollars:,.0f}")
    return table


def count(stage: StagePlan) -> str:
    """Rows, with a mark where they are assumed."""
    return f"{stage.rows.rows:,}{'*' if stage.rows.source == 'assumed' else ''}"


def millions(tokens: float) -> str:
    """A number of tokens, short."""
    return f"{tokens / 1e6:,.1f} M" if tokens >= 1e5 else f"{tokens:,.0f}"


def rates(time: Time) -> list[str]:
    """Speed, utilisation, hours with their range, dollars."""
    span = f"{time.shortest:.2f}-{time.longest:.2f}"
    return [f"{time.tokens_per_second:,.0f}", f"{time.mfu:.2f}", f"{time.hours:.2f}", span, f"{time.dollars:,.0f}"]


def elsewhere(found: Forecast) -> Table:
    """The same run on other GPUs."""
    table = titled(
        f"The same on {found.hardware.workers} of another GPU", "", "GiB", "needed", "fits", "$/hour", "hours", "$"
    )
    for kind, needed, hours, dollars in found.elsewhere:
        price = found.hardware.price if kind == found.hardware.gpu else kind.price
        verdict = fits(needed, kind.memory * GIB)
        cost = ["", ""] if verdict == "NO" else [f"{hours:.1f}", f"{dollars:,.0f}"]
        table.add_row(kind.name, f"{kind.memory:g}", f"{needed / GIB:.1f}", verdict, f"{price:.2f}", *cost)
    return table


def options_table(found: Forecast, stage: StageName, options: list[Option]) -> Table:
    """ZeRO stage x offload x micro-batch, by mode; what does not fit is in brackets."""
    room, unit = found.hardware.room or 0.0, "rows" if stage == "sft" else "pairs"
    sizes = [size for size in MICRO_BATCHES if size in SHOWN]
    title = f"{stage}: GiB of a GPU by {unit} taken at once; [does not fit], > recommended"
    table = titled(title, "", "mode", "ZeRO", "offloaded", *map(str, sizes), "at once x accumulated")
    before = ""
    for one in worth_a_line(options):
        if before and one.setup.mode != before:
            table.add_section()
        before = one.setup.mode
        cells = [cell(one.cells[size].total, room) for size in sizes]
        largest = "" if one.largest is None else f"{one.largest} x {steps(found, stage, one)}"
        mark = ">" if one.recommended else ""
        style = "bold" if one.recommended else ""
        zero = str(one.setup.zero_stage)
        table.add_row(mark, one.setup.mode, zero, one.offload, *cells, largest, style=style)
    return table


def worth_a_line(options: list[Option]) -> Iterable[Option]:
    """All but those whose offloading spares next to nothing, as an adapter's optimizer does."""
    plain = {(one.setup.mode, one.setup.zero_stage): one.cells[1].total for one in options if one.offload == "none"}
    for one in options:
        whole = plain[one.setup.mode, one.setup.zero_stage]
        if one.offload == "none" or one.recommended or one.cells[1].total < WORTH * whole:
            yield one


def steps(found: Forecast, stage: StageName, one: Option) -> int:
    """Accumulation that makes up for the micro-batch."""
    own = getattr(found.settings.training, stage)
    return int(own.micro_batch * own.accumulation // (one.largest or 1))


def cell(size: float, room: float) -> Text:
    """A number of GiB, in brackets where it does not fit."""
    words = f"{size / GIB:.1f}"
    return Text(words) if size <= room else Text(f"[{words}]", style="dim")


def disk_table(found: Forecast) -> Table:
    """Disk under the output."""
    table = titled("Disk under output, GiB", "", "GiB")
    for name, size in found.disk.items():
        table.add_row(name, f"{size / GIB:.2f}")
    return table
