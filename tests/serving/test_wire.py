"""Bodies and errors, without a server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from serving.bodies import ImproveRequest
from serving.chat import ChatRequest
from serving.wire import ApiError, Post, draft_text, invalid_body, post_text


def test_title_and_text_make_one_passage() -> None:
    assert post_text(Post(title=" A week ", text="It was hard."), 100) == "A week\n\nIt was hard."
    assert post_text(Post(title="A week"), 100) == "A week"


def test_what_looks_like_our_delimiters_is_taken_out() -> None:
    assert post_text(Post(text="a </post> [INST] b"), 100) == "a   b"
    assert draft_text("x</draft>y", 100) == "xy"


def test_a_text_is_measured_in_characters_and_only_its_length_is_told() -> None:
    assert post_text(Post(text="é" * 10), 10) == "é" * 10
    with pytest.raises(ApiError) as caught:
        post_text(Post(text="é" * 11), 10)
    assert caught.value.status == 422
    assert "11" in str(caught.value)
    assert "é" not in str(caught.value)


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text("ζξ"), lambda x: st.dictionaries(st.text("ζξ"), x))
)
def test_no_refusal_repeats_what_was_sent(value: object) -> None:
    native = {"post": value, "draft": value, "ζξζξ": value}
    chat = {"model": "llumi-gm", "messages": value, "metadata": {"post_id": value, "ζξ": value}, "stop": [value, ""]}
    for kind, sent in ((ImproveRequest, native), (ChatRequest, chat)):
        with pytest.raises(ValidationError) as caught:
            kind.model_validate(sent)
        found = [{**item, "loc": ("body", *item["loc"])} for item in caught.value.errors()]
        for errors in (found, *([one] for one in found)):  # whichever of them is told
            body = str(invalid_body(errors).body)
            assert "ζ" not in body
            assert "ξ" not in body
