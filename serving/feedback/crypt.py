"""Texts at rest: Fernet tokens (AES-128-CBC with HMAC-SHA256), under keys that can be changed while in use.

The file holds one key a line, the newest first. It is read again when it changes, so a key is
changed in three steps without a restart: put a new one on top, ``llumi feedback rotate``, take
the old one out. Without the file the texts are lost for good: keep a copy, apart from the
database's backups.
"""

import json
import logging
import os
import stat
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from configs.errors import MissingInput, UsageError
from serving.feedback.records import Texts

log = logging.getLogger("llumi.feedback")
HOW = "`llumi feedback key PATH` makes one"


class Keys:
    """The keys of one file, as they are now."""

    def __init__(self, path: Path):
        """Raises MissingInput where the file is not there, UsageError naming the line that is no key."""
        self.path = path
        self.stamp = self.stamp_now()
        self.fernet = read(path)

    def stamp_now(self) -> tuple[int, ...]:
        """Changes whenever the file does."""
        try:
            found = self.path.stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_size, found.st_ino

    def current(self) -> MultiFernet:
        """The keys; a file that cannot be read at the moment leaves those of before."""
        stamp = self.stamp_now()
        if stamp != self.stamp:
            self.stamp = stamp
            try:
                self.fernet = read(self.path)
            except (MissingInput, UsageError) as error:
                log.error("feedback: the keys of before are kept in use: %s", error)
        return self.fernet

    def seal(self, texts: Texts) -> bytes:
        """The texts, encrypted with the first key."""
        content = {"title": texts.title, "post": texts.post, "draft": texts.draft, "answers": texts.answers}
        # The standard library's JSON, since it takes text that has no UTF-8 (a lone half of a surrogate pair).
        return self.current().encrypt(json.dumps(content).encode("ascii"))

    def open(self, sealed: bytes) -> Texts | None:
        """The texts, None where none of the keys fits."""
        try:
            content = json.loads(self.current().decrypt(sealed))
        except InvalidToken:
            return None
        return Texts(content["title"], content["post"], tuple(content["answers"]), content["draft"])

    def renew(self, sealed: bytes) -> bytes | None:
        """The same texts under the first key, None where none of the keys fits."""
        try:
            return self.current().rotate(sealed)
        except InvalidToken:
            return None


def read(path: Path) -> MultiFernet:
    """The keys in ``path``; raises MissingInput or UsageError, never with a key in it."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        raise MissingInput(f"{path}: serving.feedback.key_file is not there; {HOW}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: serving.feedback.key_file cannot be read ({type(error).__name__}); {HOW}") from None
    keys = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            keys.append(Fernet(line.strip().encode()))
        except ValueError:
            raise UsageError(f"{path}:{number}: is no Fernet key (32 bytes, url-safe base64); {HOW}") from None
    if not keys:
        raise UsageError(f"{path}: serving.feedback.key_file holds no key; {HOW}")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        log.warning("%s can be read by others than its owner; chmod 600 it", path)
    return MultiFernet(keys)


def add_key(path: Path) -> None:
    """Put a new key on top of the file, which is made with mode 0600 where it is not there."""
    before = path.read_text(encoding="ascii") if path.is_file() else ""
    if before:
        read(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(Fernet.generate_key().decode() + "\n" + before)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
