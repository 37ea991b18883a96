"""Where a model lies and what it was made from: local folders, Hugging Face names, s3:// and gs://.

A model in a store is copied to a folder of the node before it is loaded, once a node and version
however many replicas start there: the first holds a lock and copies, the others wait for it. What
``llumi export`` wrote is verified by its SHA256SUMS; other models are told apart by names, sizes and
times. A copy appears under its name only when it is whole.
"""

import fcntl
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from configs.errors import ModelNotFound
from pipelines import manifest
from pipelines.corpus.sources import is_remote, resolve
from pipelines.training.delivery import CHUNK, SUMS, Place
from pipelines.training.export import LINEAGE
from pipelines.training.weights import ADAPTER_CONFIG, CONFIG, base_name

LOG = logging.getLogger("ray.serve")


def opened(location: str, *, adapter: bool = False) -> str:
    """A location as every replica opens it: a store's as it is, a folder's from the root, a Hugging Face name.

    Raises ModelNotFound where a folder is meant that holds no model, nor an ``adapter`` where it may be one.
    """
    if is_remote(location):
        return location
    folder = Path(location).expanduser()
    return str(folder.resolve()) if adapter and (folder / ADAPTER_CONFIG).is_file() else base_name(location)


def local(location: str, cache: Path, keep: int, *, adapter: bool = False) -> str:
    """What the engine opens: the location itself, or this node's copy of a model, or an ``adapter``, in a store.

    Raises ModelNotFound where there is none, or what was copied is not what its sums say.
    """
    if not is_remote(location):
        return opened(location, adapter=adapter)
    with naming(location):
        place = Place(*resolve(location), location)
        sums = sums_of(place)
        folder = cache.expanduser() / version_of(place, sums)
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (folder.parent / f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                copy(place, sums, folder)
            folder.touch()
            sweep(folder, keep)
    return str(folder)


def about(location: str) -> dict[str, Any]:
    """Lineage of a model: ``version`` (12 hex digits), ``path``, ``manifest`` (SHA-256 of it), ``made`` (its content).

    ``made`` is the manifest of a run's model, or the ``lineage.json`` of an exported one. A model with neither, such as
    one by its Hugging Face name, is told apart by its location alone and has no manifest.
    """
    found: dict[str, Any] = {
        "version": digest(location.encode())[:12],
        "path": location,
        "manifest": None,
        "made": None,
    }
    for name in (LINEAGE, manifest.FILE):
        content = small_file(location, name)
        if content is not None:
            full = digest(content)
            return {**found, "version": full[:12], "manifest": full, "made": json.loads(content)}
    return found


def small_file(location: str, name: str) -> bytes | None:
    """A file of the model, None where it has none of that name or cannot be reached from here."""
    if not is_remote(location):
        path = Path(location).expanduser() / name
        return path.read_bytes() if path.is_file() else None
    try:
        return Place(*resolve(location), location).read(name)
    except (OSError, pa.ArrowException) as error:
        LOG.warning("%s cannot be read in %s (%s)", name, location.partition("?")[0], type(error).__name__)
        return None


def sums_of(place: Place) -> Mapping[str, str] | None:
    """SHA-256 by file name as ``llumi export`` left them; None where the model came there in another way."""
    written = place.read(SUMS)
    if written is None:
        if place.read(LINEAGE) is not None:
            raise ModelNotFound(f"{place.name}: {SUMS} is missing, so its export is under way or was broken off")
        return None
    return {name: digest for digest, name in (line.split("  ", 1) for line in written.decode().splitlines())}


def version_of(place: Place, sums: Mapping[str, str] | None) -> str:
    """Name of the copy: it changes with the model's content, or where no sums are known with its files' times."""
    if sums is not None:
        return digest(json.dumps(sorted(sums.items())).encode())[:32]
    listed = place.filesystem.get_file_info(fs.FileSelector(place.path, recursive=True, allow_not_found=True))
    files = [(info.path, info.size, str(info.mtime)) for info in listed if info.type == fs.FileType.File]
    if not any(path.endswith((f"/{CONFIG}", f"/{ADAPTER_CONFIG}")) for path, _, _ in files):
        raise ModelNotFound(f"{place.name} holds no model ({CONFIG} is missing)")
    return digest(json.dumps([place.name, sorted(files)]).encode())[:32]


def copy(place: Place, sums: Mapping[str, str] | None, folder: Path) -> None:
    """Bring every file to a sibling of ``folder``, verify it, and rename."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed: we hold the lock
    partial.mkdir()
    for name in sums if sums is not None else place.listing():
        target = partial / name
        target.parent.mkdir(parents=True, exist_ok=True)
        found = hashlib.sha256()
        with place.filesystem.open_input_stream(place.at(name)) as read, target.open("wb") as write:
            while chunk := read.read(CHUNK):
                found.update(chunk)
                write.write(chunk)
        if sums is not None and found.hexdigest() != sums[name]:
            raise ModelNotFound(f"{place.name}: {name} is not what {SUMS} says; export the model again")
    partial.rename(folder)


def sweep(used: Path, keep: int) -> None:
    """Remove the copies used longest ago; a process that still has one open keeps its pages."""
    copies = [path for path in used.parent.iterdir() if path.is_dir() and not path.suffix]
    for old in sorted(copies, key=lambda path: path.stat().st_mtime, reverse=True)[keep:]:
        shutil.rmtree(old, ignore_errors=True)


def digest(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def naming(location: str) -> Iterator[None]:
    """Failures of a store as ours, naming the model."""
    try:
        yield
    except ModelNotFound:
        raise
    except (OSError, pa.ArrowException) as error:
        where = location.partition("?")[0]
        raise ModelNotFound(
            f"{where} cannot be read ({type(error).__name__}); check the address and credentials"
        ) from None
