"""Runs stages in order, skips what is complete, and writes the run's own manifest last.

No workflow engine: a stage is current where its manifest has the key that building it
again would have (settings, inputs, name), so a second call only compares keys and starts
neither Ray nor torch. One run at a time writes to an output: a lock sees to that.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from cluster import needs, session
from cluster.display import Display, Outcome, showing, summary
from cluster.stage import Stage
from cluster.stages import check_order, check_plan
from configs.errors import UsageError
from configs.load import to_yaml
from configs.settings import Settings
from pipelines import manifest
from pipelines.forgetting.staging import recover

LOCK = ".lock"
STAGE = "run"


class Runner:
    """One call of the command line on one configuration."""

    def __init__(
        self,
        settings: Settings,
        stages: Sequence[Stage],
        *,
        config: str = "CONFIG",
        console: Console | None = None,
        debug: bool = False,
    ):
        self.settings = settings
        self.stages = stages
        self.config = config
        self.console = console or Console(stderr=True)
        self.debug = debug
        self.root = Path(settings.output)

    def run(self, plan: Sequence[Stage], *, force: Sequence[Stage] = (), asked: Sequence[Stage] = ()) -> list[Outcome]:
        """Bring the stages of ``plan`` up to date, in order.

        ``force`` are made again even if current; ``asked`` were asked for by name, so that one
        of them that does not apply is an error and no skip. Where ``plan`` is the whole table,
        the run's manifest is written at the end.
        """
        outcomes = []
        whole = len(plan) == len(self.stages)
        for stage in asked:
            if reason := stage.unless():
                raise UsageError(f"{stage.name} does not apply: {reason}")
        check_plan(plan, self.stages, self.config)
        with locked(self.root), showing(self.console, len(plan)) as display:
            sweep(plan)
            for stage in plan:
                outcome = self.step(stage, display, plan, force=stage in force)
                outcomes.append(outcome)
                display.end(outcome)
            if whole:
                write_manifest(self.settings, outcomes)
        self.console.print(summary(outcomes))
        return outcomes

    def step(self, stage: Stage, display: Display, plan: Sequence[Stage], *, force: bool) -> Outcome:
        """Skip, keep or make one stage."""
        started = time.monotonic()
        if reason := stage.unless():
            return Outcome(stage.name, "skipped", reason)
        check_order(stage, self.stages, self.config)
        if not force and stage.is_current(self.settings):
            return Outcome(stage.name, "kept", "", manifest.read(stage.output))
        (self.root / manifest.FILE).unlink(missing_ok=True)
        display.begin(stage.name)
        if stage.needs:
            session.connect(self.settings, self.asks(plan), debug=self.debug)
        made = stage.make(self.settings)
        return Outcome(stage.name, "made", "", made, round(time.monotonic() - started, 1))

    def asks(self, plan: Sequence[Stage]) -> list[needs.Need]:
        """What the plan asks of the cluster at once, so that it is refused before its first stage."""
        kinds = {stage.needs for stage in plan if not stage.unless()}
        known = {"data": needs.data, "dumps": needs.reading, "training": needs.training}
        return [need(self.settings) for kind, need in known.items() if kind in kinds]


def write_manifest(settings: Settings, outcomes: Sequence[Outcome]) -> manifest.Manifest:
    """Write ``settings.yaml`` and then the run's ``manifest.json``: keys, rows and figures of every stage."""
    root = Path(settings.output)
    whole = settings.model_dump(mode="json")
    stages = {outcome.stage: described(outcome) for outcome in outcomes}
    inputs = {outcome.stage: outcome.manifest.key for outcome in outcomes if outcome.manifest}
    made = manifest.Manifest(
        stage=STAGE,
        version=manifest.distribution_version(),
        code=manifest.code_fingerprint(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(sum(o.manifest.seconds for o in outcomes if o.manifest), 3),
        settings=whole,
        inputs=inputs,
        key=manifest.key_of(STAGE, whole, inputs),
        rows={f"{o.stage}/{kind}": n for o in outcomes if o.manifest for kind, n in o.manifest.rows.items()},
        figures={"stages": stages},
        notes=[f"{o.stage}: {note}" for o in outcomes if o.manifest for note in o.manifest.notes],
    )
    put(root / "settings.yaml", to_yaml(settings))
    put(root / manifest.FILE, made.model_dump_json(indent=1))
    return made


def described(outcome: Outcome) -> dict[str, object]:
    """One stage in the run's manifest."""
    if outcome.manifest is None:
        return {"status": outcome.status, "reason": outcome.reason}
    made = outcome.manifest
    return {
        "status": outcome.status,
        "key": made.key,
        "code": made.code,
        "created": made.created,
        "seconds": made.seconds,
        "figures": made.figures,
    }


def put(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def sweep(plan: Sequence[Stage]) -> None:
    """Remove what a killed run left half-written beside the outputs; the lock says that nobody is at it."""
    for stage in plan:
        for left in stage.output.parent.glob(f".{stage.output.name}.partial-*"):
            shutil.rmtree(left, ignore_errors=True)
        for old in stage.output.parent.glob(f".{stage.output.name}.old-*"):
            if stage.output.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.rename(stage.output)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the output's lock; what a killed ``llumi forget`` had decided is finished first.

    Raises UsageError where another process holds it or nothing can be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = (root / LOCK).open("a+", encoding="ascii")
    except OSError as error:
        raise UsageError(f"output {root} cannot be written: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            other = file.read().strip() or "unknown"
            raise UsageError(
                f"output {root} is being written by process {other}; wait for it or set another output"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        recover(root)
        yield
