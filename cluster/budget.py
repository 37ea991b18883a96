"""``llumi revisions CONFIG --budget``: what asking the teacher will take, with nothing asked."""

import shutil
from pathlib import Path

from rich.console import Console

from cluster import session
from cluster.runner import Runner, locked
from cluster.stages import select, table
from configs.settings import Settings


def budget(settings: Settings, config: str, console: Console, *, debug: bool) -> str:
    """The budget in words. What the requests are made of is brought up to date first, the teacher is not asked."""
    from pipelines.pairs.im.build import preview, ready

    ready(settings)
    stages = table(settings)
    (stage,) = select(stages, "revisions")
    before = ["retrieval", "exposure"] if settings.retrieval.examples else ["exposure"]
    plan = [one for name in before for one in select(stages, name)]
    Runner(settings, stages, config=config, console=console, debug=debug).run(plan)
    scratch = stage.output.with_name(f".{stage.output.name}.partial-budget")
    with locked(Path(settings.output)):
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            session.connect(settings, debug=debug)
            return preview(settings, stage.inputs(), scratch).line()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
