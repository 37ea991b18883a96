"""Files that no manifest tells about: people's rating files, the teacher's answers, checkpoints of runs in progress."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipelines.forgetting.files import lines, lines_made_of, ratings_of, rewrite_lines
from pipelines.forgetting.report import Change, Outside
from pipelines.forgetting.scope import Scope
from pipelines.forgetting.staging import Staging
from pipelines.layout import Layout


def rating_files(staging: Staging, files: Sequence[Path], scope: Scope) -> tuple[list[Change], list[Outside]]:
    """Rating files: rewritten below the output, looked into and left alone elsewhere, since they are somebody's own."""
    changes: list[Change] = []
    outside: list[Outside] = []
    goes = ratings_of(scope.gone)
    for path in files:
        if staging.staged(path).exists() or not path.is_file():
            continue
        if staging.root.resolve() in path.resolve().parents:
            changes += take_lines(staging, path, goes)
        elif found := sum(goes(row) for row in lines(path)):
            outside.append(Outside(file=str(path), lines=found))
    return changes, outside


def answers(staging: Staging, scope: Scope) -> list[Change]:
    """The teacher's answers, kept from run to run so that nothing is paid for twice."""
    files = sorted(Layout(staging.root).teacher.glob("*.jsonl"))
    return [change for path in files for change in take_lines(staging, path, lines_made_of(scope.gone))]


def take_lines(staging: Staging, path: Path, goes: Callable[[dict[str, Any]], bool]) -> list[Change]:
    """Rewrite one file of JSON lines where it has to be."""
    if not any(goes(row) for row in lines(path)):
        return []
    staged = staging.place(path)
    shutil.copy2(path, staged)
    read, gone = rewrite_lines(staged, goes)
    name = str(path.relative_to(staging.root))
    return [Change(output=name, stage="", action="rows", rows={"lines": gone}, of={"lines": read})]


def checkpoints(staging: Staging) -> list[Change]:
    """Checkpoints of runs in progress, and their rows on this machine's disk.

    Removed rows may have gone into them; and after forgetting such a run has another key, so
    that it would never find them again.
    """
    changes = []
    for folder in sorted(Layout(staging.root).checkpoints.glob("*")):
        staging.remove(folder)
        shutil.rmtree(Path(tempfile.gettempdir()) / f"llumi-rows-{folder.name}", ignore_errors=True)
        why = "a run in progress may have trained on removed rows"
        changes.append(Change(output=str(folder.relative_to(staging.root)), stage="", action="removed", why=why))
    return changes
