"""Rows of the improvement model: post and draft in, revision out.

Nobody publishes drafts beside their revisions. What stands in for them is a pair of
replies to one post: the less liked one is the draft, the more liked one is what it
should become. The two share the post and not their author, so the model also learns to
change content; a corpus of true revisions would be better and needs no change here.
"""

from configs.prompts import messages, whole_post
from pipelines.pairs.gm import Row, Thread, pair_row, sft_row
from pipelines.pairs.old_rules import RULES, Pair, PairSettings, Replies


def prompt(thread: Thread, original: int, template: str) -> list[dict[str, str]]:
    """The conversation that asks to improve the reply at ``original``."""
    draft = thread["comments"][original]["text"]
    return messages(template, whole_post(thread["title"], thread["text"]), draft)


def improved_row(thread: Thread, pair: Pair, template: str) -> Row:
    """A row of SFT: the rejected reply is the draft, the chosen one its revision."""
    chosen, rejected = pair
    return sft_row(thread, prompt(thread, rejected, template), chosen, original=rejected)


def preference_row(thread: Thread, replies: Replies, pair: Pair, settings: PairSettings, template: str) -> Row:
    """A row of PAIR: given the draft, the chosen reply is better than another, less liked one.

    That other is the least liked reply that the same rule ranks below the chosen one; where
    there is none but the draft, the draft itself: leaving it as it is, is the worse revision.
    """
    chosen, original = pair
    return pair_row(
        thread,
        prompt(thread, original, template),
        (chosen, other_worse(replies, chosen, original, settings)),
        settings.rule,
    )


def other_worse(replies: Replies, chosen: int, original: int, settings: PairSettings) -> int:
    """Position of the least liked reply that the rule ranks below ``chosen`` and that is not the draft."""
    below = RULES[settings.rule](replies, settings)[chosen]
    others = [i for i in range(len(replies)) if below[i] and i != original]
    return min(others, key=lambda i: (replies.scores[i], replies.ids[i]), default=original)
