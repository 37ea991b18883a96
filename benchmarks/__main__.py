"""Run benchmarks by name, all without one, and keep the figures under benchmarks/results/."""

import importlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

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


def main(names: list[str]) -> int:
    """Run the benchmarks; 2 where a name is unknown."""
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        sys.stderr.write(f"error: unknown benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}\n")
        return 2
    for name in names or NAMES:
        figures = importlib.import_module(f"benchmarks.{name}").run()
        result = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": description(), **figures}
        text = json.dumps(result, indent=1)
        (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        sys.stdout.write(f"{name}\n{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
