"""Putting an export where it was asked for: whole or not at all, verified, and never over something else.

A folder is written beside its place, read again, and renamed. A store such as S3 cannot rename, so
there ``lineage.json`` comes first, to say whose place this is, and ``SHA256SUMS`` last, once every
object was read back: where it is missing, an upload is under way or was broken off.
"""

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from configs.errors import ExportError, UsageError
from pipelines.corpus.sources import is_remote, resolve
from pipelines.interrupted import no_space
from pipelines.manifest import replace
from pipelines.training.export import LINEAGE

SUMS = "SHA256SUMS"
SCHEMES = ("s3", "gs")
"""Stores that models go to; a hub of models is none, since what is put there is published."""
CHUNK = 8 << 20
"""Bytes copied or hashed at once."""
SAME = ("llumi_export", "model", "form")
"""What an earlier export must have in common with this one to be replaced by it."""


@dataclass(frozen=True)
class Delivered:
    """What became of an export."""

    target: str
    files: int
    size: int
    """Bytes."""
    written: bool
    """False where the very same export was there already."""


def deliver(files: Mapping[str, Path], sums: Mapping[str, str], target: str) -> Delivered:
    """Copy ``files`` (by name; ``lineage.json`` among them) to a folder or a store's URI and verify every byte.

    ``sums`` are what ``hashes`` made of them, so a file that changes meanwhile is found. An earlier export
    of the same model and form is replaced. Raises UsageError where something else is there or the
    URI is not understood, ExportError where what was copied cannot be read back as it was.
    """
    text = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
    if is_remote(target) and target.partition("://")[0] not in SCHEMES:
        stores = " or ".join(f"{scheme}://" for scheme in SCHEMES)
        raise UsageError(f"{target} is no place for a model: give a folder, {stores}; nothing is uploaded to a hub")
    with naming(target):
        filesystem, path = resolve(target) if is_remote(target) else (fs.LocalFileSystem(), local(target))
        place = Place(filesystem, path, target)
        place.check(json.loads(files[LINEAGE].read_text(encoding="utf-8")))
        written = not place.holds(text, sums)
        if written and is_remote(target):
            upload(place, files, sums, text)
        elif written:
            move_in(Path(path), files, sums, text, target)
    return Delivered(target, len(files) + 1, sum(path.stat().st_size for path in files.values()), written)


@dataclass(frozen=True)
class Place:
    """A folder of some file system, named in errors as the user gave it."""

    filesystem: fs.FileSystem
    path: str
    name: str

    def at(self, file: str) -> str:
        """Path of a file in it."""
        return f"{self.path.rstrip('/')}/{file}"

    def listing(self) -> list[str]:
        """Names of the files that are there, by path relative to it."""
        found = self.filesystem.get_file_info(fs.FileSelector(self.path, recursive=True, allow_not_found=True))
        start = len(self.path.rstrip("/")) + 1
        return sorted(info.path[start:] for info in found if info.type == fs.FileType.File)

    def read(self, file: str) -> bytes | None:
        """A small file's bytes, None where it is not there."""
        if self.filesystem.get_file_info(self.at(file)).type != fs.FileType.File:
            return None
        with self.filesystem.open_input_stream(self.at(file)) as stream:
            content: bytes = stream.read()
        return content

    def check(self, identity: Mapping[str, Any]) -> None:
        """Raises UsageError where something else than an earlier export of the same model and form is there."""
        if self.filesystem.get_file_info(self.path).type == fs.FileType.File:
            raise UsageError(f"{self.name} is a file; give a folder")
        there = self.listing()
        if not there:
            return
        try:
            known = json.loads(self.read(LINEAGE) or b"null")
        except ValueError:
            known = None
        if not isinstance(known, dict) or "llumi_export" not in known:
            raise UsageError(f"{self.name} holds {len(there)} files that are no export of LLUMI; give an empty place")
        if [known.get(name) for name in SAME] != [identity[name] for name in SAME]:
            words = " ".join(str(known.get(name)) for name in ("model", "stage", "form"))
            raise UsageError(f"{self.name} holds another export ({words}); give another place, or remove it first")

    def holds(self, text: str, sums: Mapping[str, str]) -> bool:
        """Whether the very files are there already, by reading them."""
        if self.read(SUMS) != text.encode() or set(self.listing()) != {*sums, SUMS}:
            return False
        return all(self.digest(name) == digest for name, digest in sums.items())

    def digest(self, file: str) -> str:
        """SHA-256 (hex) of a file as it is read back."""
        digest = hashlib.sha256()
        with self.filesystem.open_input_stream(self.at(file)) as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def verify(self, sums: Mapping[str, str]) -> None:
        """Raises ExportError naming a file that is not read back as it was written."""
        for name, digest in sums.items():
            if self.digest(name) != digest:
                raise ExportError(f"{self.name}: {name} was not read back as it was written; export again")


def local(target: str) -> str:
    """A local target as an absolute path."""
    return str(Path(target).expanduser().absolute())


def move_in(target: Path, files: Mapping[str, Path], sums: Mapping[str, str], text: str, name: str) -> None:
    """Write a sibling of ``target``, verify it, and put it in its place."""
    sweep(target)
    partial = target.with_name(f".{target.name}.partial-{socket.gethostname()}-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        for file, source in files.items():
            copy(source, partial / file)
        Place(fs.LocalFileSystem(), str(partial), name).verify(sums)
        (partial / SUMS).write_text(text, encoding="utf-8")
        replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def copy(source: Path, target: Path) -> None:
    """A copy that the disk has, and not only memory: a rename must not come before its bytes."""
    with source.open("rb") as read, target.open("wb") as write:
        shutil.copyfileobj(read, write, CHUNK)
        write.flush()
        os.fsync(write.fileno())


def sweep(target: Path) -> None:
    """Remove what exports that were killed on this machine left beside the target."""
    start = f".{target.name}.partial-{socket.gethostname()}-"
    for left in target.parent.glob(f"{start}*"):
        if not Path("/proc", left.name.removeprefix(start)).exists():
            shutil.rmtree(left, ignore_errors=True)


def upload(place: Place, files: Mapping[str, Path], sums: Mapping[str, str], text: str) -> None:
    """Mark the place as unfinished, write and verify every object, and mark it as whole."""
    if place.read(SUMS) is not None:
        place.filesystem.delete_file(place.at(SUMS))
    for name in sorted(files, key=lambda name: (name != LINEAGE, name)):
        with files[name].open("rb") as read, place.filesystem.open_output_stream(place.at(name)) as write:
            shutil.copyfileobj(read, write, CHUNK)
    place.verify(sums)
    for stale in set(place.listing()) - set(files):
        place.filesystem.delete_file(place.at(stale))
    with place.filesystem.open_output_stream(place.at(SUMS)) as write:
        write.write(text.encode())
    if place.read(SUMS) != text.encode():
        raise ExportError(f"{place.name}: {SUMS} was not read back as it was written; export again")


def hashes(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 (hex) of each file by name, in order."""
    found = {}
    for name, path in sorted(files.items()):
        with path.open("rb") as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


@contextmanager
def naming(target: str) -> Iterator[None]:
    """Errors of file systems as ours, naming the target."""
    try:
        yield
    except (ExportError, UsageError):
        raise
    except pa.ArrowInvalid as error:
        raise UsageError(f"{target} is no place that can be written: {first_line(error)}") from None
    except OSError as error:
        folder = Path(local(target)).parent
        if not is_remote(target) and (full := no_space(error, folder)):
            raise full from None
        raise ExportError(f"{target} cannot be written: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
