"""Where dumps lie: globs expanded, files opened, on this machine or in a bucket.

Local paths and ``s3://``, ``gs://`` (any URI that pyarrow's file systems know) go through
the same calls. Credentials are those of the environment (``AWS_ENDPOINT_URL`` names another
store that speaks S3; so does a query such as ``?endpoint_override=host:port&scheme=http``);
nothing is cached.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import pyarrow as pa
from pyarrow import fs

from configs.errors import DataError, MissingInput

SAMPLE = 64 << 10
"""Bytes read at three places to tell whether two files of one size are the same."""
_WILDCARD = re.compile(r"[*?\[]")
_QUERY = re.compile(r"\?[a-z_]+=.*$")


def expand(globs: Iterable[str | Path]) -> list[str]:
    """The files that the globs name, each once, sorted within a glob; local ones as absolute paths.

    Raises MissingInput naming a file that is not there or a glob that matches nothing.
    """
    found: dict[str, str] = {}
    for item in map(str, globs):
        matches = _remote_matches(item) if is_remote(item) else _local_matches(item)
        if not matches:
            raise MissingInput(f"{item}: {'the glob matches no file' if _WILDCARD.search(item) else 'no such file'}")
        for match in matches:
            found.setdefault(match if is_remote(match) else str(Path(match).resolve()), match)
    return list(found.values())


def located(globs: Iterable[str | Path]) -> list[Path | str]:
    """Like ``expand``, with local files as ``Path``, so that a fingerprint follows their size and time."""
    return [file if is_remote(file) else Path(file) for file in expand(globs)]


def is_remote(location: str) -> bool:
    """Whether ``location`` is a URI rather than a local path."""
    return "://" in location


def split_query(location: str) -> tuple[str, str]:
    """A URI without its query, and the query (``?endpoint_override=...``); a path and nothing."""
    query = _QUERY.search(location) if is_remote(location) else None
    return (location[: query.start()], location[query.start() :]) if query else (location, "")


def resolve(location: str) -> tuple[fs.FileSystem, str]:
    """The file system of ``location`` and the path inside it."""
    if is_remote(location):
        filesystem, path = fs.FileSystem.from_uri(location)
        return filesystem, path
    return fs.LocalFileSystem(), location


class Stream:
    """A file's stored bytes from some offset on, which knows where it stands."""

    def __init__(self, location: str, file: pa.NativeFile, offset: int = 0):
        self._location = location
        self._file = file
        self.offset = offset
        """Stored bytes before the next one that ``read`` gives."""

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most ``size``; none at the end. Raises DataError where the store fails."""
        try:
            data: bytes = self._file.read(size if size >= 0 else None)
        except OSError as error:
            why = type(error).__name__
            raise DataError(f"{self._location}: the store stopped answering at byte {self.offset:,} ({why})") from None
        self.offset += len(data)
        return data

    def readinto(self, view: memoryview, /) -> int:
        """Fill the view's beginning; 0 at the end."""
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def open_file(location: str, offset: int = 0) -> Stream:
    """The file as stored, without decompression, from ``offset`` on.

    Raises MissingInput where the file has gone.
    """
    file = open_random(location)
    file.seek(offset)
    return Stream(location, file, offset)


def open_random(location: str) -> pa.NativeFile:
    """The file for reading at any offset. Raises MissingInput where the file has gone."""
    filesystem, path = resolve(location)
    try:
        return filesystem.open_input_file(path)
    except OSError as error:
        raise MissingInput(f"{location}: cannot be opened ({type(error).__name__})") from None


def chunk_size(location: str) -> int:
    """Stored bytes to ask for at once: a request to a remote store costs tens of milliseconds."""
    return 8 << 20 if is_remote(location) else 256 << 10


def size(location: str) -> int:
    """Stored size of the file in bytes, 0 where the store does not say."""
    filesystem, path = resolve(location)
    return filesystem.get_file_info(path).size or 0


def repeated(locations: Iterable[str]) -> tuple[str, str] | None:
    """Two of the files that hold the same bytes, None if there are none.

    Told by size and samples from beginning, middle and end: dumps that agree in them differ nowhere.
    """
    sizes: dict[int, list[str]] = {}
    for location in locations:
        sizes.setdefault(size(location), []).append(location)
    for length, alike in sizes.items():
        seen: dict[bytes, str] = {}
        for location in alike if length and len(alike) > 1 else ():
            sample = _samples(location, length)
            if sample in seen:
                return seen[sample], location
            seen[sample] = location
    return None


def _samples(location: str, length: int) -> bytes:
    digest = hashlib.blake2b()
    with open_random(location) as file:
        for offset in sorted({0, length // 2, max(0, length - SAMPLE)}):
            file.seek(offset)
            digest.update(file.read(SAMPLE))
    return digest.digest()


def _local_matches(pattern: str) -> list[str]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        raise MissingInput(f"{pattern}: is a folder; give its files, for example {path / '*.zst'}")
    if path.is_file():
        return [str(path.absolute())]
    base = Path(path.anchor or ".")
    matches = base.glob(str(path.relative_to(path.anchor)))
    return sorted(str(match.absolute()) for match in matches if match.is_file())


def _remote_matches(uri: str) -> list[str]:
    """Files of the bucket that match; only the folder before the first wildcard is listed."""
    pattern, query = split_query(uri)
    scheme, _, rest = pattern.partition("://")
    wild = _WILDCARD.search(rest)
    folder = rest[: rest.rindex("/", 0, wild.start()) if "/" in rest[: wild.start()] else 0] if wild else rest
    try:
        filesystem, path = fs.FileSystem.from_uri(f"{scheme}://{folder}{query}")
        if not wild:
            return [uri] if filesystem.get_file_info(path).type == fs.FileType.File else []
        deep = "/" in rest[wild.start() :]
        listing = filesystem.get_file_info(fs.FileSelector(path, recursive=deep, allow_not_found=True))
    except (OSError, pa.ArrowInvalid) as error:
        why = type(error).__name__
        raise MissingInput(f"{uri}: cannot be listed ({why}); check the address and the credentials") from None
    prefix = f"{scheme}://{folder}"
    files = (prefix + info.path.removeprefix(path) for info in listing if info.type == fs.FileType.File)
    matcher = re.compile(_glob_pattern(pattern))
    return sorted(file + query for file in files if matcher.fullmatch(file))


def _glob_pattern(glob: str) -> str:
    """A regular expression in which ``*`` and ``?`` stop at slashes and ``**`` does not."""
    pieces = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", glob)
    sets = {token: token.replace("[!", "[^", 1) for token in tokens if re.fullmatch(r"\[[^\]]+\]", token)}
    return "".join(pieces.get(token) or sets.get(token) or re.escape(token) for token in tokens)
