"""A PostgreSQL server of its own for the tests, from the binaries of Debian's package."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from tests.ports import free_port

USER = "llumi"


def binaries() -> Path | None:
    """The newest server that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if found:
        return found[-1]
    known = shutil.which("initdb")
    return Path(known).resolve().parent if known else None


def runs_as() -> int | None:
    """The user to run it as, since it refuses root; None = the one who runs the tests."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise RuntimeError("neither postgres nor nobody is a user here")


class Postgres:
    """One server on a port of this machine; nobody is asked for a password."""

    def __init__(self, programs: Path):
        self.programs, self.user, self.port = programs, runs_as(), free_port()
        # Not below pytest's folder, which other users may not enter.
        self.folder = Path(tempfile.mkdtemp(prefix="llumi-postgres-"))
        self.folder.chmod(0o755)
        self.data = self.folder / "data"
        self.data.mkdir()
        if self.user is not None:
            os.chown(self.folder, self.user, -1)
            os.chown(self.data, self.user, -1)
        self._run("initdb", "-D", self.data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def _run(self, program: str, *arguments: object) -> None:
        subprocess.run(
            [self.programs / program, *map(str, arguments)], check=True, capture_output=True, cwd="/", user=self.user
        )

    def start(self) -> None:
        """Start it, after ``stop`` on the same data."""
        options = [f"-p{self.port}", f"-k{self.folder}", "-clisten_addresses=127.0.0.1", "-cshared_buffers=16MB"]
        log = (self.folder / "log").open("ab")
        command = [str(self.programs / "postgres"), "-D", str(self.data), *options]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", user=self.user)
        log.close()
        for _ in range(600):
            try:
                psycopg.connect(self.dsn("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if self.process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text(errors="replace")[-2000:]) from None
                time.sleep(0.05)
        raise RuntimeError("PostgreSQL did not come up")

    def stop(self) -> None:
        """Take it down at once, as a crash does: connections break."""
        assert self.process is not None
        self._run("pg_ctl", "-D", self.data, "-m", "immediate", "stop")
        self.process.wait()

    def remove(self) -> None:
        """The end of it."""
        assert self.process is not None
        if self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder)

    def dsn(self, database: str) -> str:
        """As psycopg takes it."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """An empty database; its URL as the settings take it."""
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"')
        return self.dsn(database)
