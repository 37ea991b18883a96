"""``llumi forget`` in the store: answers to forgotten posts, forgotten answers, and all that was said of them.

An answer is found by its request's id and by its post's: ``t3_...`` is one of Reddit's, so that
forgetting an account finds the answers to its posts where the caller named them. A post without
an id is found by nothing but the request.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from sqlalchemy import Connection, select

from configs.settings import Settings
from pipelines.forgetting.forget import Elsewhere
from pipelines.forgetting.kept import Forgotten, hashed
from pipelines.forgetting.report import Change
from pipelines.forgetting.requests import OWN, SERVED, Requests, shown
from serving.feedback import migrate, statements
from serving.feedback.database import Database
from serving.feedback.records import StoreAway
from serving.feedback.tables import answers

log = logging.getLogger("llumi.feedback")
NAME = "the feedback store"
Forget = Callable[[Requests, Forgotten], Elsewhere]


@contextmanager
def forgetting(settings: Settings, *, dry_run: bool) -> Iterator[Forget]:
    """What removes from the store; it is gone where the block ends well, and nothing is where it does not.

    The transaction begins when it is called: what is prepared in the block before may take minutes,
    and the service writes in the meantime. Raises StoreAway where the store cannot be reached.
    """
    store = settings.serving.feedback
    database = Database(store.address(settings.output), store.timeout_s)
    if not database.is_made() or migrate.step_of(database) is None:
        yield lambda _requests, _gone: Elsewhere([], frozenset())
        return
    try:
        with ExitStack() as transaction:

            def begin(requests: Requests, gone: Forgotten) -> Elsewhere:
                connection = transaction.enter_context(database.reading() if dry_run else database.writing())
                return forget(connection, requests, gone, dry_run=dry_run)

            yield begin
        if not dry_run:
            tidy(database)
    finally:
        database.close()


def tidy(database: Database) -> None:
    """It is done by then, so a failure is told and no more."""
    try:
        database.tidy()
    except StoreAway as error:
        log.warning("feedback: deleted rows may lie in the database's files until it cleans up by itself: %s", error)


def forget(connection: Connection, requests: Requests, gone: Forgotten, *, dry_run: bool) -> Elsewhere:
    """Remove what is ``gone``; says which of the ``requests`` found something."""
    wanted: dict[str, str] = {}
    for kind in ("posts", "comments"):
        for value in getattr(requests, kind):
            wanted[hashed(kind, value, gone.key)] = shown(kind, value)
    ids, found, total = [], set(), 0
    for row in connection.execute(select(answers.c.id, answers.c.request_id, answers.c.post_id)):
        total += 1
        post, answer = post_named(row.post_id), f"{SERVED}{row.request_id}"
        if gone.has("posts", post) or gone.has("comments", answer):
            ids.append(row.id)
            found.add(wanted.get(hashed("comments", answer, gone.key)))
            found.add(None if post is None else wanted.get(hashed("posts", post, gone.key)))
    if not total:
        return Elsewhere([], frozenset())
    if not dry_run:
        statements.remove(connection, ids)
    change = Change(
        output=NAME,
        stage="",
        action="rows" if ids else "kept",
        rows={"answers": len(ids)} if ids else {},
        of={"answers": total},
    )
    return Elsewhere([change], frozenset(name for name in found if name is not None))


def post_named(post_id: str | None) -> str | None:
    """A caller's id of a post as outputs and the list of what is forgotten know it."""
    if post_id is None:
        return None
    return post_id.removeprefix("t3_") if post_id.startswith("t3_") else f"{OWN}{post_id}"
