"""Run benchmarks by name, all without one, and keep the figures under benchmarks/results/.

    python -m benchmarks engine serving.soak

Some have parts, which run one after the other, can be named alone, and are kept as each is done: a part
that fails, or was not asked for, loses no other.
"""

import importlib
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from traceback import print_exc
from typing import Any

from benchmarks.machine import description

NAMES = (
    "reader",
    "scrub",
    "minhash",
    "retrieval",
    "corpus",
    "rules",
    "engine",
    "serving",
    "training",
    "planner",
    "safety",
)
RESULTS = Path(__file__).parent / "results"

Run = Callable[[], dict[str, Any]]


def main(names: list[str]) -> int:
    """Run the benchmarks; 2 where a name is unknown, 1 where a part failed."""
    unknown = sorted(name for name in set(names) if not known(name))
    if unknown:
        sys.stderr.write(f"error: unknown benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}\n")
        return 2
    done = [run(*name.split(".")) for name in names or NAMES]
    return 0 if all(done) else 1


def known(name: str) -> bool:
    """Whether there is such a benchmark, or such a part of one."""
    benchmark, _, part = name.partition(".")
    return benchmark in NAMES and (not part or part in parts_of(benchmark))


def parts_of(name: str) -> dict[str, Run]:
    """A benchmark's parts, none where it is one piece."""
    found: dict[str, Run] = getattr(importlib.import_module(f"benchmarks.{name}"), "PARTS", {})
    return found


def run(name: str, only: str | None = None) -> bool:
    """Run a benchmark, or one part of it, and keep the figures; whether all of it ended well."""
    parts, failed = parts_of(name), False
    if not parts:
        found = stamped(importlib.import_module(f"benchmarks.{name}").run())
        keep(name, found)
        show(name, found)
    for part in [only] if only else parts:
        try:
            found = stamped(parts[part]())
        except Exception as error:
            print_exc()
            sys.stderr.write(f"error: {name}.{part}: {type(error).__name__}: {error}\n")
            failed = True
        else:
            others = {**kept(name), part: found}
            keep(name, {key: others[key] for key in parts if key in others})
            show(f"{name}.{part}", found)
    return not failed


def stamped(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures with when and where they were taken."""
    return {"when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": description(), **figures}


def kept(name: str) -> dict[str, Any]:
    """What was kept of a benchmark before."""
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def keep(name: str, figures: dict[str, Any]) -> None:
    """Write them down."""
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def show(name: str, figures: dict[str, Any]) -> None:
    """Print them."""
    sys.stdout.write(f"{name}\n{json.dumps(figures, indent=1)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
