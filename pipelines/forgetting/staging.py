"""Many outputs changed as one: all are prepared beside, then a journal is written, then they are moved.

    <output>/.forgetting/new/...         what will stand in its place, whole
    <output>/.forgetting/old/...         what stood there, until it is deleted
    <output>/.forgetting/journal.json    what is to be moved and removed; its presence means "decided"

A process killed before the journal is there has changed nothing, and what it prepared is
thrown away. One killed afterwards is finished by whoever takes the output's lock next:
each move is done once however often it is tried. So no command ever sees threads without
somebody's posts beside pairs that still hold them. What it costs is disk: what is rewritten
lies there twice for a moment; files that do not change are hard links.
"""

import json
import os
import shutil
from pathlib import Path

FOLDER = ".forgetting"
JOURNAL = "journal.json"


class Staging:
    """What is to become of the files and folders below ``root``; nothing of it happens before ``commit``."""

    def __init__(self, root: Path):
        self.root = root
        self.folder = root / FOLDER
        self.operations: list[tuple[str, str]] = []
        recover(root)
        (self.folder / "new").mkdir(parents=True)

    def place(self, path: Path) -> Path:
        """Where to write what will stand at ``path`` (below the root): a file or a folder."""
        name = str(path.relative_to(self.root))
        self.operations.append(("put", name))
        staged = self.folder / "new" / name
        staged.parent.mkdir(parents=True, exist_ok=True)
        return staged

    def copy(self, path: Path) -> Path:
        """Like ``place`` for a folder, filled with hard links to its files: replace them, never write into them."""
        staged = self.place(path)
        shutil.copytree(path, staged, copy_function=link)
        return staged

    def remove(self, path: Path) -> None:
        """Have the file or folder removed."""
        self.operations.append(("remove", str(path.relative_to(self.root))))

    def commit(self) -> None:
        """Decide and carry out; after the first rename of this call the change will happen, whoever finishes it."""
        partial = self.folder / f"{JOURNAL}.partial"
        with partial.open("w", encoding="utf-8") as file:
            json.dump(self.operations, file)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self.folder / JOURNAL)
        finish(self.root)

    def unplace(self, path: Path) -> None:
        """Think better of a folder that was to stand at ``path``."""
        self.operations.remove(("put", str(path.relative_to(self.root))))
        shutil.rmtree(self.staged(path))

    def staged(self, path: Path) -> Path:
        """Where what will stand at ``path`` lies, if it is prepared."""
        try:
            return self.folder / "new" / path.relative_to(self.root)
        except ValueError:
            return self.folder / "new" / "elsewhere"

    def close(self) -> None:
        """Throw away what was prepared and not decided."""
        if not (self.folder / JOURNAL).is_file():
            shutil.rmtree(self.folder, ignore_errors=True)


def recover(root: Path) -> bool:
    """Finish what was decided, throw away what was not; returns whether there was something to finish.

    Only for who holds the output's lock.
    """
    folder = root / FOLDER
    if not folder.is_dir():
        return False
    if (folder / JOURNAL).is_file():
        finish(root)
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def finish(root: Path) -> None:
    """Carry out the journal, from wherever it was left."""
    folder = root / FOLDER
    journal = folder / JOURNAL
    (folder / "old").mkdir(exist_ok=True)
    for number, (what, name) in enumerate(json.loads(journal.read_text(encoding="utf-8"))):
        target, staged, old = root / name, folder / "new" / name, folder / "old" / str(number)
        if what == "put" and staged.exists():
            if target.is_dir():
                target.rename(old)
            target.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(target)
        elif what == "remove" and target.exists() and not old.exists():
            target.rename(old)
    shutil.rmtree(folder / "new", ignore_errors=True)
    shutil.rmtree(folder / "old", ignore_errors=True)
    journal.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def link(source: str, target: str) -> str:
    """A hard link, a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
