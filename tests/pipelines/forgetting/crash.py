"""A process of its own that forgets again and again, each time killed with SIGKILL at another moment.

    python -m tests.pipelines.forgetting.crash FOLDER POINTS

The moments are calls to the file system, counted by an audit hook in a forked child, which
kills itself right before its ``k``-th one. Prints a JSON object with what was found.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from pipelines import manifest
from pipelines.forgetting.forget import forget
from pipelines.forgetting.requests import Requests
from pipelines.forgetting.staging import FOLDER, JOURNAL, recover
from tests.pipelines.forgetting.world import World, files_with, words

CALLS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "shutil.rmtree", "shutil.copyfile"}
ASKED = Requests(frozenset({"p4"}), frozenset({"c2x2"}), frozenset({"ann"}))
GONE = ("p0", "p1", "c0x0", "c1x2", "p4", "c4x1", "c2x2")
OUTPUTS = ("threads", "exposure", "sft", "pairs", "ratings", "rated_pairs")


def child(work: Callable[[], object], die_at: int | None = None) -> tuple[bool, int]:
    """Run ``work`` in a fork that dies before its ``die_at``-th call; whether it was killed, and calls counted."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        counted = 0

        def hook(event: str, _arguments: object) -> None:
            nonlocal counted
            if event in CALLS:
                counted += 1
                if counted == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()
        os.write(writer, str(counted).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        told = file.read()
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, int(told or 0)


def run(world: World) -> None:
    forget(world.settings, ASKED, ratings=[world.at.ratings / "ratings.jsonl"])


def look(world: World) -> dict[str, object]:
    """Rows by output, whether outputs fit together, and where removed texts are left."""
    rows = {}
    linked = True
    for name in OUTPUTS:
        made = manifest.read(world.root / name)
        rows[name] = None if made is None else {kind: count.model_dump() for kind, count in made.rows.items()}
        if made is not None and "threads" in made.inputs:
            linked &= made.inputs["threads"] == manifest.fingerprint(world.at.threads)
    left = {name: found for name in GONE if (found := files_with(world.root, words(name)))}
    return {"rows": rows, "linked": linked, "left": left, "hidden": (world.root / FOLDER).exists()}


def main(folder: Path, points: int) -> None:
    world = World(folder / "run").everything()
    before = look(world)
    shutil.copytree(world.root, folder / "template")

    def renew() -> None:
        shutil.rmtree(world.root)
        shutil.copytree(folder / "template", world.root)

    renew()
    _, total = child(lambda: run(world))
    after = look(world)
    results = []
    for die_at in sorted({1 + round(i * (total - 1) / (points - 1)) for i in range(points)}):
        renew()
        killed, _ = child(lambda: run(world), die_at)
        decided = (world.root / FOLDER / JOURNAL).exists()
        child(lambda: recover(world.root))  # what every command does once it holds the lock
        between = look(world)
        child(lambda: run(world))
        results.append({"at": die_at, "killed": killed, "decided": decided, "recovered": between, "again": look(world)})
    print(json.dumps({"total": total, "before": before, "after": after, "results": results}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
