"""What dumps contain beside good rows: a small, known number of each kind, noted in the truth.

Some kinds mark a reply of the simulation (edited, an e-mail in its text, a hidden
score); the others add a row (a bot, a deleted comment, a duplicate). At least one of
each kind is made, so that even a small sample shows them all.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from pipelines.sample.community import END, OTHER_SUBREDDIT, Comment, Community, Thread
from pipelines.sample.language import EXTRA_SENTENCES, FOREIGN

MARKED_REPLIES = {
    "edited": 0.006, "mention": 0.004, "email": 0.003, "url": 0.005, "crisis_line": 0.003, "null_score": 0.003,
}  # fmt: skip
"""Share of replies that are marked, a kind; they keep their votes and their order of arrival."""
ADDED_COMMENTS = {
    "deleted": 0.012, "removed": 0.008, "bot": 0.008, "stickied": 0.004, "by_poster": 0.015, "duplicate": 0.005,
    "foreign": 0.005, "nested": 0.02, "orphan": 0.002,
}  # fmt: skip
"""Comments that are added, as a share of the replies."""
MARKED_POSTS = {"over_18": 0.008, "deleted_post": 0.008, "removed_post": 0.004, "edited_post": 0.004}
"""Share of posts that are added with that mark; their comments bear the same kind."""
OTHER_POSTS = 0.02
"""Share of posts that are added in another community."""
DUPLICATE_POSTS = 0.004

_T = TypeVar("_T")
_THANKS = (
    ("Thank you,", "I did not expect an answer,", "I read this twice,", "That is true,", "Oh,", "Good to hear,"),
    ("this means a lot to me", "I had not seen it like that", "I needed to hear that", "that gives me some hope"),
    ("tonight.", "right now.", "after a day like this.", "this week.", "more than you know."),
    (
        "I will try it tomorrow.",
        "I will tell you how it goes.",
        "I can breathe a little.",
        "It is hard to explain more.",
    ),
)
"""What posters answer in their own threads, part by part."""
_BOT = "I am a bot, and this action was performed automatically. Please read the rules of this community."
_STICKIED = "A note from the moderators: please be kind to each other and report comments that break the rules."


def quota(rows: Sequence[object], share: float) -> int:
    """How many of ``rows`` a kind gets: its share, at least one, and none of nothing."""
    return min(len(rows), max(1, round(share * len(rows))))


def soil(rng: random.Random, community: Community, threads: list[Thread]) -> None:
    """Add dirt of every kind to ``threads``, in place."""
    clean = list(threads)
    for kind, share in MARKED_POSTS.items():
        for _ in range(quota(clean, share)):
            threads.append(marked_thread(kind, community.thread()))
    for _ in range(quota(clean, OTHER_POSTS)):
        thread = marked_thread("other_subreddit", community.thread())
        threads.append(replace(thread, subreddit=OTHER_SUBREDDIT))
    for thread in rng.sample(clean, quota(clean, DUPLICATE_POSTS)):
        again = replace(thread, post_id=community.post_ids(), comments=[], kind="duplicate_post")
        threads.append(replace(again, created_utc=min(END, thread.created_utc + 90_000)))
    mark_replies(rng, [comment for thread in clean for comment in thread.comments])
    add_comments(rng, community, clean)


def marked_thread(kind: str, thread: Thread) -> Thread:
    """``thread`` with its post, and thereby all its comments, of that kind."""
    thread.kind = kind
    for comment in thread.comments:
        comment.kind = kind
    if kind == "over_18":
        thread.fields["over_18"] = True
    elif kind == "edited_post":
        thread.fields["edited"] = thread.created_utc + 600
    elif kind == "deleted_post":
        thread.author, thread.text = "[deleted]", "[deleted]"
    elif kind == "removed_post":
        thread.text = "[removed]"
    return thread


def mark_replies(rng: random.Random, replies: list[Comment]) -> None:
    """Mark some replies as edited, without a score, or with personal data in their text."""
    chosen = rng.sample(replies, sum(quota(replies, share) for share in MARKED_REPLIES.values()))
    for kind, share in MARKED_REPLIES.items():
        for _ in range(quota(replies, share)):
            comment = chosen.pop()
            comment.kind = kind
            if kind == "edited":
                comment.fields["edited"] = comment.created_utc + 300
            elif kind == "null_score":
                comment.score = None
            else:
                comment.text += " " + EXTRA_SENTENCES[kind].format(name=rng.choice(replies).author)


def add_comments(rng: random.Random, community: Community, threads: list[Thread]) -> None:
    """Add comments that are no replies of helpers to the posts, or cannot be used."""
    replies = [comment for thread in threads for comment in thread.comments]
    usable = [comment for comment in replies if comment.kind == "normal"]
    make: dict[str, Callable[[Thread, Comment], Comment]] = {
        "deleted": lambda thread, new: replace(new, author="[deleted]", text="[deleted]"),
        "removed": lambda thread, new: replace(new, text="[removed]"),
        "bot": lambda thread, new: replace(new, author="AutoModerator", text=_BOT, score=1),
        "stickied": lambda thread, new: replace(
            new, author="HarborModerator", text=_STICKIED, fields={"stickied": True, "distinguished": "moderator"}
        ),
        "by_poster": lambda thread, new: replace(
            new, author=thread.author, text=" ".join(map(rng.choice, _THANKS)), fields={"is_submitter": True}
        ),
        "duplicate": lambda thread, new: duplicate(new, rng.choice(usable)),
        "foreign": lambda thread, new: replace(new, text=rng.choice(FOREIGN)),
        "nested": lambda thread, new: replace(community.reply(thread, 1, new.created_utc, 0.2), order=0, kind="nested"),
        "orphan": lambda thread, new: community.reply(thread, 1, new.created_utc, 1.0),
    }
    for kind, share in ADDED_COMMENTS.items():
        for _ in range(quota(replies, share)):
            thread = rng.choice(threads)
            new = make[kind](thread, blank(rng, community, thread, kind))
            if kind == "nested":
                new.parent = rng.choice(thread.comments).comment_id
            elif kind == "orphan":
                new = replace(new, order=0, kind=kind, post_id=community.post_ids())
            thread.comments.append(new)


def blank(rng: random.Random, community: Community, thread: Thread, kind: str) -> Comment:
    """A comment that still lacks its text, some time after the post."""
    created = thread.created_utc + (5 if kind in {"bot", "stickied"} else rng.randint(300, 40_000))
    author = rng.choice(community.helpers)
    return Comment(community.comment_ids(), author, "", created, rng.randint(1, 6), kind=kind)


def duplicate(new: Comment, of: Comment) -> Comment:
    """``new`` with the words, and so the truth, of another comment, posted after it."""
    return replace(new, text=of.text, truth=of.truth, created_utc=max(new.created_utc, of.created_utc + 60))
