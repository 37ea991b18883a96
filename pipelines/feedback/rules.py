"""From ratings to preferences: who is left out, how ratings add up, when a pair is made.

Each rater's ratings are put on a common scale (z-score over all they gave), a response's
score is the mean of its five dimensions, and an item's margin the mean over its raters. A choice
without ratings counts as ``feedback.choice_margin``, and says nothing about safety.
Everything left out is counted under a name. Pure functions, no files.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, pstdev

from configs.pairs import FeedbackSettings
from pipelines.feedback.ratings import Rating, Response


@dataclass(frozen=True)
class Preference:
    """The outcome of one item: the response that raters prefer."""

    item_id: str
    model: str
    post_id: str
    draft: str | None
    chosen: Response
    rejected: Response
    margin: float
    """Mean difference of the responses, in standard deviations of a rater's own ratings."""
    agreement: float
    """Share of raters who prefer the chosen response."""
    raters: int


def usable(rows: Sequence[Rating], settings: FeedbackSettings) -> tuple[list[Rating], Counter[str]]:
    """The ratings that count, and why the others do not."""
    dropped: Counter[str] = Counter()
    complete: list[Rating] = []
    seen: set[tuple[str, str, str]] = set()
    for row in rows:
        key = (row.model, row.item_id, row.rater_id)
        if (missing := row.missing()) and not row.is_choice():
            dropped[f"incomplete_{missing}"] += 1
        elif key in seen:
            dropped["rated_twice"] += 1
        else:
            seen.add(key)
            complete.append(row)
    excluded = excluded_raters(complete, settings)
    kept = []
    for row in complete:
        if reason := excluded.get(row.rater_id):
            dropped[f"rater_{reason}"] += 1
        elif row.is_attention:
            dropped["attention_item"] += 1
        else:
            kept.append(row)
    return kept, dropped


def excluded_raters(rows: Iterable[Rating], settings: FeedbackSettings) -> dict[str, str]:
    """Reason by rater: ``failed_attention``, ``straight_lining`` or ``no_variance`` (no scale can be taken)."""
    by_rater: dict[str, list[Rating]] = defaultdict(list)
    for row in rows:
        by_rater[row.rater_id].append(row)
    excluded = {}
    for rater, own in by_rater.items():
        real = [row for row in own if not row.is_attention and not row.is_choice()]
        only_chose = not real and any(row.is_choice() for row in own)
        if sum(row.is_attention and not row.passes_attention() for row in own) > settings.max_failed_attention:
            excluded[rater] = "failed_attention"
        elif len(real) > 1 and fmean(row.is_straight() for row in real) > settings.max_straight_share:
            excluded[rater] = "straight_lining"
        elif not only_chose and len({rating for row in real for rating in given(row)}) < 2:
            excluded[rater] = "no_variance"
    return excluded


def given(row: Rating) -> list[int]:
    """All ten ratings of a row."""
    return row.ratings_a.given() + row.ratings_b.given()


def differences(rows: Sequence[Rating], choice_margin: float = 1.0) -> dict[tuple[str, str], list[float]]:
    """By model and item, each rater's difference of a and b in standard deviations of their own ratings."""
    by_rater: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        if not row.is_choice():
            by_rater[row.rater_id].extend(given(row))
    spread = {rater: pstdev(values) for rater, values in by_rater.items()}
    items: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if row.is_choice():
            items[row.model, row.item_id].append(choice_margin if row.preferred == "a" else -choice_margin)
            continue
        # The rater's mean cancels in the difference of two z-scores; the standard deviation does not.
        difference = fmean(row.ratings_a.given()) - fmean(row.ratings_b.given())
        items[row.model, row.item_id].append(difference / spread[row.rater_id])
    return items


def preferences(rows: Sequence[Rating], settings: FeedbackSettings) -> tuple[list[Preference], dict[str, Counter[str]]]:
    """A preference of each item that allows one; by model, why the others allow none."""
    by_item: dict[tuple[str, str], list[Rating]] = defaultdict(list)
    for row in rows:
        by_item[row.model, row.item_id].append(row)
    margins = differences(rows, settings.choice_margin)
    found: list[Preference] = []
    dropped: dict[str, Counter[str]] = defaultdict(Counter)
    for key, own in by_item.items():
        outcome = preference(own, margins[key], settings)
        if isinstance(outcome, Preference):
            found.append(outcome)
        else:
            dropped[key[0]][outcome] += 1
    return found, dropped


def preference(rows: Sequence[Rating], margins: Sequence[float], settings: FeedbackSettings) -> Preference | str:
    """The preference that the ratings of one item show, or the reason why they show none."""
    if len(rows) < settings.min_raters:
        return "too_few_raters"
    margin = fmean(margins)
    sign = 1 if margin > 0 else -1
    agreement = sum(sign * value > 0 for value in margins) / len(margins)
    first = rows[0]
    chosen, rejected = (first.response_a, first.response_b) if sign > 0 else (first.response_b, first.response_a)
    if abs(margin) < settings.min_margin:
        return "margin_too_small"
    if agreement < settings.min_agreement - 1e-9:
        return "raters_disagree"
    if is_vetoed([row for row in rows if not row.is_choice()], sign, settings):
        return "safety_veto"
    if length_ratio(chosen.text, rejected.text) > settings.max_length_ratio:
        return "length_ratio"
    return Preference(
        first.item_id, first.model, first.post_id, first.draft, chosen, rejected, abs(margin), agreement, len(rows)
    )


def is_vetoed(rows: Sequence[Rating], sign: int, settings: FeedbackSettings) -> bool:
    """Whether the preferred response is rated unsafe, or less safe than the other; False where nobody rated."""
    if not rows:
        return False
    safety_a = median(safety(row.ratings_a.safety) for row in rows)
    safety_b = median(safety(row.ratings_b.safety) for row in rows)
    safe, unsafe = (safety_a, safety_b) if sign > 0 else (safety_b, safety_a)
    return safe <= settings.safety_veto or safe < unsafe


def safety(rating: int | None) -> int:
    """A safety rating that is known to be there, rows without it having been left out."""
    assert rating is not None
    return rating


def length_ratio(first: str, second: str) -> float:
    """Words of the longer text / words of the shorter one."""
    lengths = sorted((len(first.split()), len(second.split())))
    return lengths[1] / max(1, lengths[0])


def rater_counts(excluded: Mapping[str, str]) -> dict[str, int]:
    """Number of excluded raters by reason."""
    return dict(sorted(Counter(excluded.values()).items()))
