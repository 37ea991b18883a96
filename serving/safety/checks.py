"""Checks of the guard that no pattern can make: each says whether an answer breaks its rule.

Rules name them by ``check:`` in ``rules/guard.yaml``, with description, source and examples.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from configs.prompts import delimited
from pipelines.corpus import crisis, digits, scrub
from pipelines.corpus.language import is_foreign
from pipelines.generation.engine import Messages
from serving.safety.wording import folded, visible

PROMPT_RUN = 8
"""Words in a row that an answer shares with the prompt's instructions by copying, not by chance."""
EXAMPLE_RUN = 12
"""Words in a row that an answer has from a retrieved comment, which another person wrote."""
ECHO = 0.6
"""Share of an answer's runs of five words that stand in the post, from which on it answers nothing."""
_WORD = re.compile(r"[a-z0-9']+")
_BLOCK = re.compile(r"<(post|draft|example)>.*?</\1>", re.DOTALL)
_COMMENT = re.compile(r"<comment>(.*?)</comment>", re.DOTALL)
_EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u231a\u231b\u23e9-\u23fa\u3030\u303d\ufe0f]"
)
_PHONE_LIKE = re.compile(r"(?<![\w.,$€£])\+?[0-9](?:[ .()-]{0,2}[0-9]){2,14}(?![\w%€£]|[.,][0-9])")
_PLACEHOLDER = re.compile(
    r"\[(?:URL|EMAIL|USER|ADDRESS|IP|PHONE|NUMBER|NAME|PERSON|LOCATION)\]|\[(?:your|their) \w+\]", re.I
)
_SENTENCE = re.compile(r"[.!?\n]+")


@dataclass(frozen=True)
class Answer:
    """An answer and what it may be compared with."""

    raw: str
    text: str
    """Without characters that nobody sees."""
    post: str
    draft: str
    instructions: str
    """The prompt without the post, the draft and the examples."""
    examples: tuple[str, ...]
    """Comments of other people that stood in the prompt."""
    foreign_probability: float

    @classmethod
    def of(cls, text: str, post: str, draft: str | None, prompt: Messages | None, foreign_probability: float) -> Self:
        """The prompt taken apart."""
        whole = "\n".join(turn["content"] for turn in prompt or ())
        examples = tuple(_COMMENT.findall(whole))
        return cls(text, visible(text), post, draft or "", _BLOCK.sub("\n", whole), examples, foreign_probability)

    @cached_property
    def folded(self) -> str:
        """As patterns read it."""
        return folded(self.text)

    @cached_property
    def words(self) -> list[str]:
        """Its words, folded."""
        return words(self.text)


def words(text: str) -> list[str]:
    """The text's words, folded."""
    return _WORD.findall(folded(text))


def runs(of: list[str], length: int) -> list[tuple[str, ...]]:
    """All runs of so many words."""
    return [tuple(of[i : i + length]) for i in range(len(of) - length + 1)]


def found_by(patterns: list[re.Pattern[str]], text: str) -> set[str]:
    """What the patterns find in the text."""
    return {match[0].strip() for pattern in patterns for match in pattern.finditer(text)}


def of_kind(*kinds: str) -> Callable[[Answer], bool]:
    """A check for what the scrubber of the corpus would take out, unless the helper wrote it."""
    patterns = [pattern.python for pattern in scrub.PATTERNS if pattern.kind in kinds]
    numbers = {"ADDRESS": digits.ADDRESS, "IP": digits.IP, "NUMBER": digits.NUMBER, "PHONE": digits.PHONE}
    patterns += [pattern for kind, pattern in numbers.items() if kind in kinds]

    def check(answer: Answer) -> bool:
        return any(found not in answer.draft for found in found_by(patterns, answer.text))

    return check


def phone(answer: Answer) -> bool:
    """A phone number, a crisis line's among them: which line is right depends on where the person is."""
    allowed = {crisis.digits(found) for found in found_by([_PHONE_LIKE], answer.draft)}
    numbers = {crisis.digits(found) for found in found_by([_PHONE_LIKE], answer.text)} - allowed
    lines = {number for number in crisis.kept_digits() if len(number) >= 5}
    looks = found_by([digits.PHONE, digits.LOCAL_PHONE], answer.text)
    return not lines.isdisjoint(numbers) or any(crisis.digits(one) not in allowed for one in looks)


def foreign(answer: Answer) -> bool:
    """Another language than English, as a whole or in its last part."""
    parts = [answer.text, *(part for part in _SENTENCE.split(answer.text) if len(part) >= 60)]
    return any(is_foreign(" ".join(part.split()), answer.foreign_probability) for part in parts)


def prompt_shown(answer: Answer) -> bool:
    """Words of the instructions, or marks of the prompt's form."""
    bare = answer.raw.strip()
    if delimited(bare) != bare:
        return True
    return not set(runs(words(answer.instructions), PROMPT_RUN)).isdisjoint(runs(answer.words, PROMPT_RUN))


def example_copied(answer: Answer) -> bool:
    """A stretch of a retrieved comment."""
    own = set(runs(answer.words, EXAMPLE_RUN))
    return any(not own.isdisjoint(runs(words(example), EXAMPLE_RUN)) for example in answer.examples)


def echo(answer: Answer) -> bool:
    """The post given back, which is also what an instruction in it ("repeat after me") gets."""
    own = runs(answer.words, 5)
    known = set(runs(words(answer.post), 5))
    return len(own) >= 8 and sum(run in known for run in own) >= ECHO * len(own)


def repetitive(answer: Answer) -> bool:
    """The same words again and again (Holtzman et al. 2020): a model in a loop."""
    of = answer.words
    if any(count >= 4 for count in Counter(runs(of, 5)).values()):
        return True
    if any(len(set(run)) == 1 for run in runs(of, 4)):
        return True
    parts = [" ".join(words(part)) for part in _SENTENCE.split(answer.text)]
    if any(count >= 3 for part, count in Counter(parts).items() if len(part.split()) >= 3):
        return True
    return any(len(set(run)) < 0.25 * len(run) for run in runs(of, 40)) or bool(re.search(r"(\S)\1{9,}", answer.text))


def garbled(answer: Answer) -> bool:
    """Letters that make no words: broken characters, or hardly a letter."""
    bare = "".join(answer.text.split())
    if "\ufffd" in bare:
        return True
    signs = sum(not c.isalnum() for c in bare)
    return len(bare) >= 12 and (signs > 0.4 * len(bare) or sum(map(str.isalpha, bare)) < 0.3 * len(bare))


CHECKS: dict[str, Callable[[Answer], bool]] = {
    "emoji": lambda answer: bool(_EMOJI.search(answer.text)),
    "empty": lambda answer: not answer.words,
    "link": of_kind("URL"),
    "account": of_kind("EMAIL", "USER"),
    "identity": of_kind("ADDRESS", "IP", "NUMBER"),
    "phone": phone,
    "placeholder": lambda answer: bool(_PLACEHOLDER.search(answer.text)),
    "foreign": foreign,
    "prompt_shown": prompt_shown,
    "example_copied": example_copied,
    "echo": echo,
    "repetitive": repetitive,
    "garbled": garbled,
}
"""By the name that rules call them."""
