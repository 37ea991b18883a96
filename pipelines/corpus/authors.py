"""Authors as keyed hashes: equal for equal accounts, and without the key not to be found by trying names.

The key comes from the file that ``corpus.scrub.author_key`` names, else from the variable
``LLUMI_AUTHOR_KEY``, else from ``author.key`` under the output, which is made on first
use. Another key gives other hashes, so a fingerprint of the key is among what threads
depend on. Who has the key can tell which hash an account has: keep it to yourself, and
delete it when nobody is to be able to any more.
"""

import logging
import os
import secrets
import stat
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa

from configs.errors import DataError, MissingInput

KEY_VARIABLE = "LLUMI_AUTHOR_KEY"
KEY_FILE = "author.key"
FEWEST = 16
"""Characters of a key: whoever holds the hashes of known accounts can try all shorter ones."""
log = logging.getLogger("llumi.corpus")


def author_hash(author: str | None, key: bytes) -> str | None:
    """Keyed BLAKE2b (hex, 16 bytes) of an account's name, whatever its case; None stays None."""
    return None if author is None else blake2b(author.lower().encode(), key=key, digest_size=16).hexdigest()


def author_hashes(names: pa.Array, key: bytes) -> pa.Array:
    """``author_hash`` of each of a string column, worked out once a name."""
    known = names.dictionary_encode()
    hashes = pa.array([author_hash(name, key) for name in known.dictionary.to_pylist()], pa.string())
    return hashes.take(known.indices)


def author_key(folder: Path, named: str | None = None) -> bytes:
    """The key (32 bytes) of author hashes for outputs in ``folder``, made there on first use where none is given.

    ``named`` is ``corpus.scrub.author_key``. Raises MissingInput where that file is not
    there, DataError where a key is empty or too short.
    """
    if (key := given_key(folder, named)) is not None:
        return key
    path = folder / KEY_FILE
    folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:  # another process was first
        return _of_file(path)
    text = secrets.token_hex(32)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")
    log.info("made the key of author hashes: %s", path)
    return _derived(text)


def given_key(folder: Path, named: str | None = None) -> bytes | None:
    """The key, None where one has yet to be made; makes nothing."""
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise MissingInput(
                f"{path}: corpus.scrub.author_key names no file; write {FEWEST} characters or more into it"
            )
        return _of_file(path)
    if text := os.environ.get(KEY_VARIABLE, "").strip():
        if len(text) < FEWEST:
            raise DataError(f"{KEY_VARIABLE}: a key has {FEWEST} characters or more, this one {len(text)}")
        return _derived(text)
    path = folder / KEY_FILE
    return _of_file(path) if path.is_file() else None


def key_check(key: bytes) -> str:
    """What tells two keys apart and gives neither away (hex, 16 bytes)."""
    return blake2b(b"llumi-key-check", key=key, digest_size=16).hexdigest()


def _of_file(path: Path) -> bytes:
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if not text:
        raise DataError(f"{path}: is empty; delete it to have a new key made, or write {FEWEST} characters into it")
    if len(text) < FEWEST:
        raise DataError(f"{path}: a key has {FEWEST} characters or more, this one {len(text)}")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        log.warning("%s can be read by others (mode %04o); chmod 600 it", path, mode)
    return _derived(text)


def _derived(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=32).digest()
