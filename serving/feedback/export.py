"""What raters said of the service's answers, as a rating file that the feedback stage reads.

A line compares two answers to the same post (and draft) by the same model, see ``comparing``.

Texts are scrubbed as the corpus is. Ids are those by which ``llumi forget`` finds them: an answer
is ``served:<request_id> <index>``; a post is Reddit's id, ``post:`` and the caller's id, or
``text:`` and a hash of its words.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import orjson
from sqlalchemy import Connection, exists, or_, select

from configs.errors import UsageError
from configs.settings import Settings
from pipelines.corpus.scrub import scrub
from pipelines.feedback.ratings import DIMENSIONS, Post, Rating, Response, Scores
from pipelines.forgetting import kept
from pipelines.forgetting.requests import SERVED
from pipelines.interrupted import no_space
from serving.feedback import migrate
from serving.feedback.comparing import Preferred, Said, Shown, compared
from serving.feedback.crypt import Keys
from serving.feedback.database import Database
from serving.feedback.forgetting import post_named
from serving.feedback.records import Texts
from serving.feedback.statements import AT_ONCE, Found
from serving.feedback.store import oldest
from serving.feedback.tables import answers, choices, ratings


@dataclass
class Exported:
    """What became of the answers that somebody said something about."""

    answers: int = 0
    """Answers with feedback on them."""
    used: int = 0
    """Of these, how many stand in a line."""
    lines: int = 0
    items: int = 0
    most_raters: int = 0
    """Most raters of one item, for ``feedback.min_raters``."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Answers that stand in no line, by reason."""


def export(settings: Settings, path: Path) -> Exported:
    """Write the rating file at once, mode 0600; a file that is there is replaced.

    Raises UsageError where no texts are kept, StoreAway, and NoSpace.
    """
    store = settings.serving.feedback
    if store.key_file is None:
        raise UsageError(
            "serving.feedback.key_file is not set, so there are no texts to make pairs of: keep them by"
            " serving.feedback.keep_text and a key (`llumi feedback key PATH`) before the answers are given"
        )
    keys = Keys(Path(store.key_file).expanduser())
    database = Database(store.address(settings.output), store.timeout_s)
    made = Exported()
    try:
        migrate.upgrade(database)
        with database.reading() as connection, replacing(path) as file:
            groups = grouped(connection, settings, keys, made)
            for group in groups.values():
                for rating in lines(connection, settings, keys, group, made):
                    file.write(orjson.dumps(rating.model_dump()) + b"\n")
    finally:
        database.close()
    return made


def grouped(connection: Connection, settings: Settings, keys: Keys, made: Exported) -> dict[bytes, list[int]]:
    """Answers to the same post (and draft) by the same model, each group in the order in which they were given."""
    gone = kept.load(Path(settings.output), settings.corpus.scrub.author_key)
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row in spoken_of(connection, oldest(settings.serving.feedback)):
        made.answers += 1
        if row.texts is None:
            made.left_out["no_text_kept"] += 1
        elif gone.has("posts", post_named(row.post_id)) or gone.has("comments", f"{SERVED}{row.request_id}"):
            made.left_out["forgotten"] += 1
        elif (texts := keys.open(row.texts)) is None:
            made.left_out["no_key_fits"] += 1
        else:
            words = orjson.dumps([row.model, row.post_id, *map(encoded, (texts.title, texts.post, texts.draft or ""))])
            groups[blake2b(words, digest_size=16).digest()].append(row.id)
    return groups


def spoken_of(connection: Connection, since: datetime) -> Iterator[Found]:
    """Answers given ``since`` with ratings or a choice, by number, a page at a time."""
    said = or_(*(exists().where(table.c.answer_id == answers.c.id) for table in (ratings, choices)))
    last = 0
    while True:
        page = select(answers).where(answers.c.id > last, answers.c.created >= since, said)
        rows = connection.execute(page.order_by(answers.c.id).limit(AT_ONCE)).all()
        yield from rows
        if len(rows) < AT_ONCE:
            return
        last = rows[-1].id


def lines(
    connection: Connection, settings: Settings, keys: Keys, group: Sequence[int], made: Exported
) -> Iterator[Rating]:
    """The lines of one group; counts what becomes of its answers."""
    rows = {
        row.id: row for start in range(0, len(group), AT_ONCE) for row in named(connection, group[start:][:AT_ONCE])
    }
    texts = {number: keys.open(row.texts) for number, row in rows.items()}
    drafts = {number: shown(rows[number], words, settings) for number, words in texts.items() if words is not None}
    used: set[int] = set()
    raters: Counter[str] = Counter()
    for rater_id, said in by_rater(connection, list(drafts)).items():
        for first, second, preferred in compared(said, drafts):
            words = texts[first.answer]
            assert words is not None
            line = rating(settings, rows[first.answer], words, rater_id, (first, second), said, preferred)
            used |= {first.answer, second.answer}
            raters[line.item_id] += 1
            made.lines += 1
            yield line
    made.used += len(used)
    made.items += len(raters)
    made.most_raters = max([made.most_raters, *raters.values()])
    made.left_out["nothing_to_compare_with"] += len(group) - len(used)


def named(connection: Connection, numbers: Sequence[int]) -> Sequence[Found]:
    """Answers by number."""
    return connection.execute(select(answers).where(answers.c.id.in_(numbers))).all()


def shown(row: Found, texts: Texts, settings: Settings) -> list[Shown]:
    """The drafts of an answer that hold a text."""
    clean = [scrubbed(text, settings) for text in texts.answers]
    return [
        Shown(row.id, index, Response(id=f"{SERVED}{row.request_id} {index}", text=text))
        for index, text in enumerate(clean)
        if text
    ]


def by_rater(connection: Connection, group: Sequence[int]) -> dict[str, list[Said]]:
    """What each rater said of the group's answers, in the order in which these were given."""
    scores: dict[tuple[str, int], dict[int, Scores]] = defaultdict(dict)
    chosen: dict[tuple[str, int], int] = {}
    for start in range(0, len(group), AT_ONCE):
        part = group[start : start + AT_ONCE]
        for row in connection.execute(select(ratings).where(ratings.c.answer_id.in_(part))):
            given = {name: getattr(row, name) for name in DIMENSIONS}
            scores[row.rater_id, row.answer_id][row.draft] = Scores(**given)
        for row in connection.execute(select(choices).where(choices.c.answer_id.in_(part))):
            chosen[row.rater_id, row.answer_id] = row.draft
    found: dict[str, list[Said]] = defaultdict(list)
    for rater_id, answer in sorted({*scores, *chosen}):
        key = (rater_id, answer)
        found[rater_id].append(Said(answer, scores.get(key, {}), chosen.get(key)))
    return found


def rating(
    settings: Settings,
    row: Found,
    texts: Texts,
    rater_id: str,
    pair: tuple[Shown, Shown],
    said: Sequence[Said],
    preferred: Preferred,
) -> Rating:
    """One line."""
    a, b = pair
    scores = {one.answer: one.scores for one in said}
    post = Post(title=scrubbed(texts.title, settings), text=scrubbed(texts.post, settings))
    words = blake2b(f"{post.title}\n\n{post.text}".encode(), digest_size=12).hexdigest()
    return Rating(
        item_id=blake2b(f"{row.key_id} {a.response.id} {b.response.id}".encode(), digest_size=12).hexdigest(),
        model=row.model,
        post_id=post_named(row.post_id) or f"text:{words}",
        post=post,
        draft=None if texts.draft is None else scrubbed(texts.draft, settings),
        response_a=a.response,
        response_b=b.response,
        rater_id=rater_id,
        ratings_a=scores[a.answer].get(a.index, Scores()),
        ratings_b=scores[b.answer].get(b.index, Scores()),
        is_attention=False,
        source="human",
        preferred=preferred,
    )


def scrubbed(text: str | None, settings: Settings) -> str:
    """The text as the corpus would have it."""
    return scrub(encoded(text or ""), settings.corpus.scrub).strip()


def encoded(text: str) -> str:
    """The text with a question mark for what has no UTF-8: a lone half of a surrogate pair."""
    return text.encode(errors="replace").decode()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path``, whole, where the block ends well; only its owner may read it."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(partial, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise no_space(error, path.parent) or error from None
    finally:
        partial.unlink(missing_ok=True)
