"""Text as the rules read it: one spelling, cut into sentences, and what stands around a match.

People write around filters: other letters that look alike, letters apart, digits and stars for
letters, characters that nobody sees. All of that is folded before a rule is tried.

What surrounds a match follows ConText (Harkema et al. 2009, J Biomed Inform 42:839), the way
clinical text is read for negation, for the past and for whom it is about. A cue never removes a
sign of acute risk, it lowers it by one step: who writes that they do not want to die is telling
something. Not covered: irony, and a negation that stands in another sentence.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "rules"
_LOOKALIKES = str.maketrans("аеорсухіјѕԁһոⅼαοι", "aeopcyxijsdhnlaoi")  # noqa: RUF001
WINDOW, OVERLAP = 400, 150
"""Characters of a stretch of a sentence without an end, and what it shares with the next."""
_QUOTES = str.maketrans(
    {"’": "'", "‘": "'", "`": "'", "´": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "..."}  # noqa: RUF001
)
_DIGITS = str.maketrans("013457@$!|", "oieastasii")
_MIXED = re.compile(r"(?<!\w)\$?[a-z]+(?:[013457@$!|]+[a-z]+)+\b|(?<![\w$])\$[a-z]{3,}")
_MASKED = re.compile(r"\b[a-z]{1,9}[*#_]{1,9}+[a-z]{0,9}\b|\b[*#_]{1,9}+[a-z]{1,9}\b")
_APART = re.compile(r"\b[a-z](?:[ .\-_*]+[a-z]){2,}\b")
_JOINED = re.compile(
    r"^(i|kill|killing|end|ending|hate|my)(want|wish|hate|feel|cant|will|need|dont|just|am|myself|my|me|it|life)([a-z]*)$"
)
_LONG = re.compile(r"([a-z])\1{2,}")
_LONG_END = re.compile(r"([^\W\d_lsf])\1{2,}+(\b)?")
_SENTENCE = re.compile(r"(?<!\.)\.(?!\.)\s+|[!?]+|\n+|;")
_WORDS_MASKED = (
    "kill", "killing", "suicide", "suicidal", "die", "died", "dying", "death", "dead", "cut", "cutting", "hang",
    "hanging", "overdose", "shoot", "harm", "rape", "raped", "myself", "unalive",
)  # fmt: skip


def folded(text: str) -> str:
    """``text`` in the one spelling that rules are written for: lower case, plain letters and quotes."""
    text = unicodedata.normalize("NFKC", text.translate(_QUOTES))
    text = unicodedata.normalize("NFD", visible(text).lower())
    text = "".join(c for c in text if unicodedata.category(c) != "Mn").translate(_LOOKALIKES)
    text = _LONG_END.sub(lambda found: found[0] if found[2] is None else found[1], text)
    text = _LONG.sub(r"\1\1", text)
    text = _MIXED.sub(lambda found: found[0].translate(_DIGITS), text)
    text = _MASKED.sub(lambda found: unmasked(found[0]), text)
    text = _APART.sub(lambda found: together(found[0]), text)
    return re.sub(r"[^\S\n]+", " ", text)


def visible(text: str) -> str:
    """``text`` without characters that show nothing and only hide words from a rule."""
    return "".join(c for c in text if unicodedata.category(c) != "Cf")


def together(letters: str) -> str:
    """The words of letters set apart: ``k i l l m y s e l f``."""
    joined = re.sub(r"[^a-z]", "", letters)
    return _JOINED.sub(r"\1 \2 \3", joined).strip()


def unmasked(word: str) -> str:
    """The word that ``s**cide`` stands for, where it is one that people mask; else the word as it is."""
    shape = re.compile("".join("[a-z]?" if c in "*#_" else c for c in word))
    return next((known for known in _WORDS_MASKED if shape.fullmatch(known)), word)


def sentences(text: str) -> list[str]:
    """The folded text in sentences; three dots end none, since people pause with them in the middle.

    What has no end for long is read in overlapping windows: what a match costs grows with what is around it.
    """
    parts = (part.strip() for part in _SENTENCE.split(text))
    return [window for part in parts if part for window in windows(part)]


def windows(part: str) -> Iterator[str]:
    """The sentence, or stretches of ``WINDOW`` characters of it that begin at a word."""
    start = 0
    while len(part) - start > WINDOW:
        yield part[start : start + WINDOW]
        space = part.find(" ", start + WINDOW - OVERLAP)
        start = space + 1 if start < space <= start + WINDOW else start + WINDOW - OVERLAP
    yield part[start:]


@cache
def cue_patterns() -> dict[str, re.Pattern[str]]:
    """The cues of ``cues.yaml``, each kind as one pattern."""
    data: dict[str, Any] = yaml.safe_load((FOLDER / "cues.yaml").read_text(encoding="utf-8"))
    return {kind: re.compile(r"(?:" + "|".join(one["patterns"]) + ")") for kind, one in data["cues"].items()}


def cues(sentence: str, match: re.Match[str]) -> Iterator[str]:
    """What is around a match: any of negated, past, other (about somebody else), reported, fiction, figurative."""
    before, after = sentence[: match.start()], sentence[match.end() :]
    if negated(before, after):
        yield "negated"
    if past(sentence):
        yield "past"
    if other(before, match[0]):
        yield "other"
    patterns = cue_patterns()
    if patterns["reported"].search(before):
        yield "reported"
    if patterns["fiction"].search(sentence):
        yield "fiction"
    if patterns["figurative"].match(after.lstrip()):
        yield "figurative"


def negated(before: str, after: str) -> bool:
    """Whether an odd number of negations reach from the clause before the match."""
    patterns = cue_patterns()
    if patterns["so_much"].match(after.lstrip()):
        return False
    plain = patterns["thinks"].sub(" not ", patterns["no_negation"].sub(" ", before))
    near = " ".join(patterns["clause"].split(plain)[-1].split()[-6:])
    return len(patterns["negation"].findall(near)) % 2 == 1


def past(sentence: str) -> bool:
    """Whether the sentence speaks of a time long gone and of nothing that goes on or was lately."""
    patterns = cue_patterns()
    return bool(patterns["past"].search(sentence)) and not patterns["recent"].search(sentence)


def of_a_thing(before: str) -> bool:
    """Whether the subject before the match is a thing or an animal: a phone that died."""
    patterns = cue_patterns()
    ends = {
        kind: max((m.end() for m in patterns[kind].finditer(before)), default=-1)
        for kind in ("first", "others", "things")
    }
    return ends["things"] > max(ends["first"], ends["others"])


def other(before: str, found: str) -> bool:
    """Whether the match is about somebody else than the writer; where nothing tells, it is the writer."""
    patterns = cue_patterns()
    if re.search(r"\b(?:myself|my own|me)\b", found):
        return False
    if re.search(r"\b(?:him|her|them|your)sel(?:f|ves)\b", found):
        return True
    if patterns["everybody"].search(before):
        return False
    first = [m.end() for m in patterns["first"].finditer(before)]
    others = [m.end() for m in patterns["others"].finditer(before)]
    return bool(others) and max(others) > max(first, default=-1)
