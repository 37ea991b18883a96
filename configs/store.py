"""Settings of the feedback store: where answers and what people thought of them are kept, and for how long."""

from pathlib import Path
from typing import Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, model_validator

from configs.base import Section

SQLITE, POSTGRESQL = "sqlite", "postgresql+psycopg"
FILE = "serving/feedback.db"
"""The database where none is named, below ``output``."""


class StoreSettings(Section):
    """Which answers were given, and their ratings and choices."""

    enabled: bool = True
    """Keep answers by id and take feedback on them; without it /v1/feedback answers 404."""
    url: str | None = None
    """``postgresql://USER@HOST:PORT/DATABASE`` or ``sqlite:////PATH``; None is a SQLite file under ``output``.
    Replicas on more than one machine need PostgreSQL. A password belongs into a file of libpq's form,
    named by ``?passfile=/path`` or the variable PGPASSFILE."""
    keep_text: bool = False
    """Keep the texts of posts, drafts and answers, encrypted; pairs for DPO2 are made of nothing else."""
    key_file: str | None = None
    """File of Fernet keys, one a line, for ``keep_text``: the first encrypts, all of them decrypt."""
    retention_days: int = Field(180, ge=1, le=36_500)
    """Days after which an answer goes, with its texts and the feedback on it."""
    raters: Literal["own", "any"] = "own"
    """Whose answers a key may give feedback on: those that it asked for itself, or any."""
    timeout_s: float = Field(5, gt=0, le=300)
    """Seconds that the database has: to be reached, to give way to another writer, to finish a statement."""
    wait_s: float = Field(0.25, ge=0, le=10)
    """Most seconds that an answer waits for its record to be written; it is then sent all the same."""
    max_waiting: int = Field(10_000, ge=1)
    """Records kept in memory while the database is away, a replica of the ingress; the oldest go first."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.keep_text and self.key_file is None:
            raise ValueError(
                "keep_text needs key_file: make one with `llumi feedback key PATH`, keep a copy of it elsewhere"
            )
        if self.url is not None:
            check_url(self.url)
        return self

    def address(self, output: str) -> str:
        """The database's URL as SQLAlchemy takes it, for a run under ``output``."""
        if self.url is None:
            return f"{SQLITE}:///{Path(output).expanduser().resolve() / FILE}"
        scheme, rest = self.url.split("://", 1)
        return f"{SQLITE if scheme == SQLITE else POSTGRESQL}://{rest}"

    def resolved(self, output: str) -> "StoreSettings":
        """The same with paths that hold wherever a replica runs; as it is where the store is switched off."""
        if not self.enabled:
            return self
        key_file = None if self.key_file is None else str(Path(self.key_file).expanduser().resolve())
        return self.model_copy(update={"url": self.address(output), "key_file": key_file})


def check_url(url: str) -> None:
    """Raises ValueError, without the URL itself: what is configured is shown in dashboards and saved beside outputs."""
    scheme = url.partition("://")[0]
    if "://" not in url or scheme not in (SQLITE, "postgresql", POSTGRESQL):
        raise ValueError("url: expected postgresql://USER@HOST:PORT/DATABASE or sqlite:////PATH")
    if scheme == SQLITE:
        if not url.startswith("sqlite:////"):
            raise ValueError("url: SQLite takes an absolute path, after four slashes: sqlite:////var/lib/feedback.db")
        return
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("url: host and port cannot be told apart") from None
    if parts.password is not None or "password" in parse_qs(parts.query, keep_blank_values=True):
        raise ValueError(
            "url: holds a password, and settings are shown in dashboards and saved beside outputs; put it into a file"
            " of libpq's form (HOST:PORT:DATABASE:USER:PASSWORD, mode 0600) and name that by ?passfile=/path"
        )
