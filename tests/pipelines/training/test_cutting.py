"""Prompts that are cut to fit."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from configs import prompts
from configs.errors import ConfigError
from pipelines.training.cutting import LEAST, CompletionTooLong, encode_fitting
from pipelines.training.encode import RowTooLong, encode
from pipelines.training.scratch import TEMPLATE
from tests.pipelines.training.chats import tokenizers

CHATS = tokenizers()
WORDS = [f"word{number}" for number in range(400)]
GOOD, LONGER = ([{"role": "assistant", "content": text}] for text in ("That sounds hard.", "Rest. " * 20))
EXAMPLES = [{"post": "An example " * 30, "reply": "A comment"}]


def prompt(words: int = 400, name: str = "im") -> list[dict[str, str]]:
    draft = "Just rest. <post>" if name == "im" else None
    return prompts.messages(name, prompts.whole_post("The title", " ".join(WORDS[:words])), draft, EXAMPLES)


def parts(messages: Any) -> tuple[str, str, str]:
    """What stands before, in and after the post that is answered."""
    before, post, after = re.split(r"<post>\n|\n</post>", messages[0]["content"])
    return before, post, after


@pytest.mark.parametrize("name", CHATS)
def test_only_the_middle_of_the_post_is_cut(name: str) -> None:
    tokenizer, whole = CHATS[name], prompt()
    length = sum(map(len, encode(tokenizer, whole, GOOD)))
    found = encode_fitting(tokenizer, whole, [GOOD], length - 200, cut=True)
    assert found.cut and length - 215 < found.length <= length - 200
    before, post, after = parts(found.prompt)
    assert (before, after) == (parts(whole)[0], parts(whole)[2])
    head, tail = post.split(" [...] ")
    assert head.startswith("The title\n\nword0 word1 ") and tail.endswith(" word398 word399")
    assert parts(whole)[1].startswith(head) and parts(whole)[1].endswith(tail)
    counted = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (head, tail)]
    assert abs(counted[0] - counted[1]) < 8
    assert encode(tokenizer, found.prompt, GOOD) == (found.prompt_ids, found.completions[0])
    assert found.completions[0] == encode(tokenizer, whole, GOOD)[1]


def test_both_replies_of_a_pair_stand_under_one_prompt_cut_for_the_longer() -> None:
    tokenizer, whole = CHATS["llama-3"], prompt()
    lengths = [sum(map(len, encode(tokenizer, whole, reply))) for reply in (GOOD, LONGER)]
    found = encode_fitting(tokenizer, whole, [GOOD, LONGER], max(lengths) - 100, cut=True)
    assert max(lengths) - 115 < found.length <= max(lengths) - 100
    assert found.completions == [encode(tokenizer, whole, reply)[1] for reply in (GOOD, LONGER)]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 400), st.integers(16, 1800), st.sampled_from(["gm", "im"]))
def test_a_row_fits_whole_or_cut_or_is_refused_by_name(words: int, longest: int, name: str) -> None:
    tokenizer, whole = CHATS["chatml"], prompt(words, name)
    length = sum(map(len, encode(tokenizer, whole, GOOD)))
    try:
        found = encode_fitting(tokenizer, whole, [GOOD], longest, cut=True)
    except CompletionTooLong as error:
        text = parts(whole)[1]
        post = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        assert length > longest and str(length) in str(error) and str(longest) in str(error)
        assert length - post + LEAST > longest - 16, "the post could have been cut further"
    else:
        assert found.length <= longest and found.cut == (length > longest)


def test_nothing_is_cut_unless_asked_for() -> None:
    with pytest.raises(RowTooLong) as raised:
        encode_fitting(CHATS["chatml"], prompt(), [GOOD], 300)
    assert not isinstance(raised.value, CompletionTooLong)


def test_a_prompt_without_a_post_to_cut_is_refused() -> None:
    with pytest.raises(CompletionTooLong):
        encode_fitting(CHATS["chatml"], [{"role": "user", "content": "word " * 400}], [GOOD], 300, cut=True)


def test_a_tokenizer_that_cannot_tell_where_its_tokens_stand_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = CHATS["mistral-v0.2"]
    monkeypatch.setattr(PreTrainedTokenizerFast, "is_fast", False)
    assert tokenizer.chat_template == TEMPLATE
    with pytest.raises(ConfigError, match="too_long: cut_prompt needs a fast tokenizer"):
        encode_fitting(tokenizer, prompt(), [GOOD], 300, cut=True)
