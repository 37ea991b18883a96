"""What machine the figures were taken on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def description() -> dict[str, object]:
    """Processor, cores, memory and the versions that matter."""
    return {
        "processor": _field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "ray", "transformers", "zstandard", "orjson")},
    }


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"
