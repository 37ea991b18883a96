"""The code that a job carries: the project's folder without data, environments or tests, weighed before the upload.

Ray leaves out what ``.gitignore`` and ``.rayignore`` name, and answers a package of more than
100 MiB with HTTP 413 after the whole upload. What it would send is therefore listed here
first, by Ray's own walk over the folder, so that both always agree.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from cluster.session import source_root
from configs.errors import UsageError
from pipelines.manifest import PACKAGES

MB = 10**6
EXCLUDES = ("/.git", "/.venv", "/venv", "/runs", "/tests", "__pycache__", "*.zst", "*.parquet", "*.safetensors")
NAMED = 5


def working_dir(scratch: Path) -> Path:
    """The project's root, or where LLUMI is installed as a wheel a copy of its four packages in ``scratch``."""
    root = source_root()
    if (root / "pyproject.toml").is_file():
        return root
    for package in PACKAGES:
        shutil.copytree(root / package, scratch / package, ignore=shutil.ignore_patterns("__pycache__"))
    return scratch


def contents(root: Path) -> dict[str, int]:
    """Size in bytes of each file that Ray would upload, by path relative to ``root``."""
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    sizes: dict[str, int] = {}

    def weigh(path: Path) -> None:
        if path.is_file():
            sizes[str(path.relative_to(root))] = path.stat().st_size

    root = root.absolute()
    by_git = os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "0") != "1"
    quiet = logging.getLogger("llumi.package")
    _dir_travel(root, [_get_excludes(root, list(EXCLUDES))], weigh, include_gitignore=by_git, logger=quiet)
    return sizes


def check_size(sizes: Mapping[str, int], limit_mb: float) -> float:
    """The size in MB; raises UsageError naming the largest files where it is above ``limit_mb``."""
    total = sum(sizes.values()) / MB
    if total > limit_mb:
        largest = sorted(sizes.items(), key=lambda item: -item[1])[:NAMED]
        named = ", ".join(f"{path} ({size / MB:.1f} MB)" for path, size in largest)
        raise UsageError(
            f"the code to upload is {total:.1f} MB, more than cluster.max_upload_mb = {limit_mb:g}; "
            f"largest: {named}; move data out of the project or list it in .rayignore"
        )
    return total
