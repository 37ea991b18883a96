"""What makes a reply good in the simulation: features of its wording, weighed.

``quality`` is the latent variable that votes and raters see through noise; the five
dimensions are other weighings of the same features. A feature that is repeated earns
little more, so that piling up sentences is no way to a good reply, and length as such
earns nothing.
"""

from collections.abc import Mapping
from typing import NamedTuple

DIMENSIONS = ("readability", "empathy", "connection", "actionability", "safety")
REPEATED = 0.3
"""What the second and third sentence of a feature count, the first counting 1."""

WEIGHTS: Mapping[str, float] = {
    "validation": 1.0,
    "question": 0.7,
    "step": 0.9,
    "shared": 0.8,
    "wish": 0.25,
    "filler": -0.1,
    "minimising": -1.0,
    "dismissal": -1.3,
    "judgement": -1.4,
}
ON_TOPIC, GENERAL, OFF_TOPIC = 0.5, 0.0, -0.8
"""Worth of a reply that names the post's trouble, that could stand under any post, and that names another trouble."""

_DIMENSION_WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "readability": {"base": 4.3, "filler": -0.6, "fit": 0.6, "dismissal": -0.2, "judgement": -0.2},
    "empathy": {
        "base": 2.5, "validation": 1.3, "shared": 0.6, "question": 0.4, "wish": 0.4,
        "minimising": -1.2, "dismissal": -1.1, "judgement": -1.1, "fit": 0.5,
    },
    "connection": {
        "base": 2.4, "shared": 1.2, "question": 1.0, "validation": 0.4, "wish": 0.3,
        "minimising": -0.7, "dismissal": -1.1, "judgement": -1.0, "fit": 0.6,
    },
    "actionability": {
        "base": 2.0, "step": 1.9, "question": 0.4, "shared": 0.3,
        "minimising": -0.4, "dismissal": -0.7, "judgement": -0.5, "fit": 0.5,
    },
    "safety": {
        "base": 4.3, "validation": 0.2, "step": 0.1,
        "minimising": -0.7, "dismissal": -1.1, "judgement": -1.4, "fit": 0.2,
    },
}  # fmt: skip


class Judged(NamedTuple):
    """The truth about one reply; quality has no bounds, the dimensions lie in 1-5."""

    quality: float
    readability: float
    empathy: float
    connection: float
    actionability: float
    safety: float


def judge(sentences: Mapping[str, int], fit: float) -> Judged:
    """The truth about a reply with so many ``sentences`` a feature and the topical ``fit`` (a constant above)."""
    amounts = {feature: saturated(n) for feature, n in sentences.items()}
    quality = sum(WEIGHTS[feature] * amount for feature, amount in amounts.items()) + fit
    dimensions = (
        weights["base"] + weights.get("fit", 0.0) * fit + sum(weights.get(f, 0.0) * a for f, a in amounts.items())
        for weights in _DIMENSION_WEIGHTS.values()
    )
    return Judged(quality, *(min(5.0, max(1.0, value)) for value in dimensions))


def saturated(n: int) -> float:
    """1 for the first sentence, little for the second and third, nothing for more."""
    return 0.0 if n <= 0 else 1.0 + REPEATED * (min(n, 3) - 1)
