"""OpenAI's own client against the service: every call that it has here."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.serving.running import ANSWER, DRAFT, POST, REVISION, Site, running
from tests.serving.test_generate import ACUTE

ASK: list[Any] = [{"role": "user", "content": f"{POST['title']}\n\n{POST['text']}"}]
IMPROVE: list[Any] = [*ASK, {"role": "assistant", "content": DRAFT}]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("openai"), info={"version": "abc123"}) as site:
        yield site


@pytest.fixture
def client(site: Site) -> Iterator[OpenAI]:
    site.gm.answer, site.im.answer = ANSWER, REVISION
    with OpenAI(base_url=f"{site.url}/v1", api_key="unused", max_retries=0, timeout=30) as client:
        yield client


def test_a_post_gets_a_draft(client: OpenAI) -> None:
    completion = client.chat.completions.create(model="llumi-gm", messages=ASK)
    assert completion.object == "chat.completion"
    assert completion.model == "llumi-gm"
    assert completion.choices[0].message.role == "assistant"
    assert completion.choices[0].message.content == ANSWER
    assert completion.choices[0].message.refusal is None
    assert completion.choices[0].finish_reason == "stop"
    assert completion.system_fingerprint == "abc123"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == len(ANSWER.split())
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert completion.model_extra is not None
    assert completion.model_extra["risk"] == {"level": "none", "signals": [], "action": "none"}
    assert completion.model_extra["resources_required"] is False


def test_the_models_answer_what_their_prompts_make_of_a_post_on_either_interface(client: OpenAI, site: Site) -> None:
    client.chat.completions.create(model="llumi-im", messages=IMPROVE)
    site.post("/v1/improve", {"post": POST, "draft": DRAFT})
    (_, by_chat, _), (_, natively, _) = site.im.seen[-2:]
    assert by_chat == natively


def test_a_draft_gets_a_revision(client: OpenAI) -> None:
    parts = [*ASK, {"role": "assistant", "content": [{"type": "text", "text": DRAFT}]}]
    for messages in (IMPROVE, parts):
        completion = client.chat.completions.create(model="llumi-im", messages=messages)
        assert completion.choices[0].message.content == REVISION


def test_the_request_id_is_the_clients(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="llumi-gm", messages=ASK, extra_headers={"x-request-id": "mine-7"}
    )
    assert raw.parse().id == "mine-7"


def test_several_choices_have_seeds_of_their_own(client: OpenAI, site: Site) -> None:
    site.gm.answer = lambda prompt, sampling: f"{ANSWER} {'So' if sampling.seed % 2 else 'Well'}, how are you today?"
    once, again = (client.chat.completions.create(model="llumi-gm", messages=ASK, n=2, seed=4) for _ in range(2))
    assert [choice.index for choice in once.choices] == [0, 1]
    texts = [choice.message.content for choice in once.choices]
    assert texts[0] != texts[1]
    assert texts == [choice.message.content for choice in again.choices]


def test_sampling_reaches_the_engine(client: OpenAI, site: Site) -> None:
    client.chat.completions.create(
        model="llumi-gm", messages=ASK, max_tokens=7, temperature=0, top_p=0.5, stop=["Would"], user="someone"
    )
    client.chat.completions.create(model="llumi-gm", messages=ASK, max_completion_tokens=6)
    first, second = (sampling for _, _, sampling in site.gm.seen[-2:])
    assert (first.max_new_tokens, first.temperature, first.top_p, first.stop) == (7, 0, 0.5, ("Would",))
    assert second.max_new_tokens == 6


def test_max_tokens_and_stop_end_an_answer(client: OpenAI) -> None:
    short = client.chat.completions.create(model="llumi-gm", messages=ASK, max_tokens=3)
    assert short.choices[0].finish_reason == "length"
    stopped = client.chat.completions.create(model="llumi-gm", messages=ASK, stop="Would")
    assert stopped.choices[0].finish_reason == "stop"
    assert "Would" not in (stopped.choices[0].message.content or "")


def test_log_probabilities_are_given_for_each_token(client: OpenAI) -> None:
    completion = client.chat.completions.create(model="llumi-gm", messages=ASK, logprobs=True)
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert completion.usage is not None
    assert len(logprobs.content) == completion.usage.completion_tokens
    assert all(token.logprob <= 0 for token in logprobs.content)
    assert "".join(token.token for token in logprobs.content) == ANSWER
    assert bytes(byte for token in logprobs.content for byte in token.bytes or ()).decode() == ANSWER


def test_a_stream_adds_up_and_ends_with_the_usage(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="llumi-gm", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].model_extra is not None
    assert chunks[0].model_extra["risk"]["level"] == "none"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.strip() == ANSWER
    assert sum(1 for chunk in chunks if chunk.choices and chunk.choices[0].delta.content) > 1
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(ANSWER.split())


def test_a_stream_without_options_carries_no_usage(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="llumi-gm", messages=ASK, stream=True, n=2))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    for index in (0, 1):
        mine = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == index]
        assert "".join(choice.delta.content or "" for choice in mine).strip() == ANSWER
        assert mine[0].delta.role == "assistant"


def test_a_stream_can_be_left(client: OpenAI, site: Site) -> None:
    with client.chat.completions.create(model="llumi-gm", messages=ASK, stream=True) as stream:
        next(stream)
    assert client.chat.completions.create(model="llumi-gm", messages=ASK).choices[0].message.content == ANSWER


@pytest.mark.parametrize("stream", [False, True])
def test_a_post_at_acute_risk_is_refused_as_the_client_knows_it(client: OpenAI, stream: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": ACUTE["text"]}]
    answer: Any = client.chat.completions.create(model="llumi-gm", messages=messages, stream=stream)
    if stream:
        chunks = [chunk for chunk in answer if chunk.choices]
        refusal, finish, extra = chunks[0].choices[0].delta.refusal, chunks[-1].choices[0].finish_reason, chunks[0]
        assert all(not chunk.choices[0].delta.content for chunk in chunks)
    else:
        refusal, finish, extra = answer.choices[0].message.refusal, answer.choices[0].finish_reason, answer
        assert answer.choices[0].message.content is None
    assert finish == "content_filter"
    assert "acute" in refusal
    assert extra.model_extra["risk"]["level"] == "acute"
    assert extra.model_extra["resources_required"] is True


def test_the_models_are_listed_and_retrieved(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert set(listed) == {"llumi-gm", "llumi-im"}
    assert all((model.object, model.owned_by) == ("model", "llumi") for model in listed.values())
    assert client.models.retrieve("llumi-im") == listed["llumi-im"]


def test_a_model_that_is_not_here_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4o")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=ASK)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "llumi-gm" in caught.value.message
    assert "gpt-4o" not in caught.value.message


SYSTEM = {"role": "system", "content": "You are a pirate."}
IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a system message": ({"messages": [SYSTEM, *ASK]}, "messages", "messages_not_supported"),
    "a longer conversation": ({"messages": [*ASK, *ASK]}, "messages", "messages_not_supported"),
    "no draft for im": ({"model": "llumi-im"}, "messages", "messages_not_supported"),
    "no messages": ({"messages": []}, "messages", "too_short"),
    "an empty post": ({"messages": [{"role": "user", "content": " "}]}, "messages", "empty"),
    "an image": ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages.0.content.0.type", "literal_error"),
    "a tool": ({"tools": []}, "tools", "unsupported_parameter"),
    "a penalty": ({"presence_penalty": 0.5}, "presence_penalty", "less_than_equal"),
    "a form of answer": ({"response_format": {"type": "json_object"}}, "response_format.type", "literal_error"),
    "an id with spaces": ({"metadata": {"post_id": "zebrafish 7"}}, "metadata.post_id", "string_pattern_mismatch"),
    "an id without end": ({"metadata": {"post_id": "zebrafish" * 20}}, "metadata.post_id", "string_too_long"),
    "an unknown field": ({"extra_body": {"zebrafish": 1}}, None, "unknown_field"),
    "a hot temperature": ({"temperature": 9}, "temperature", "less_than_equal"),
    "no tokens": ({"max_tokens": 0}, "max_tokens", "greater_than_equal"),
    "many tokens": ({"max_tokens": 100_000}, "max_tokens", "too_large"),
    "two lengths": ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens", "invalid_value"),
    "many drafts": ({"n": 9}, "n", "too_large"),
    "many stop texts": ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "too_long"),
    "more log-probabilities": ({"logprobs": True, "top_logprobs": 3}, "top_logprobs", "less_than_equal"),
    "a long prompt": (
        {"messages": [{"role": "user", "content": "a b " * 1200}]},
        "messages",
        "context_length_exceeded",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_here_is_a_bad_request_that_names_the_field(client: OpenAI, case: str, stream: bool) -> None:
    options, param, code = REFUSED[case]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": "llumi-gm", "messages": ASK, "stream": stream, **options})
    assert (caught.value.param, caught.value.code, caught.value.type) == (param, code, "invalid_request_error")
    assert "pirate" not in str(caught.value)
    assert "zebrafish" not in str(caught.value)


def test_a_failing_model_is_a_server_error_with_a_time_to_wait(tmp_path: Any) -> None:
    with running(tmp_path, engine={"dies_after": 4, "token_s": 0.01}) as site:
        client = OpenAI(base_url=f"{site.url}/v1", api_key="unused", max_retries=0, timeout=30)
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="llumi-gm", messages=ASK)
        assert caught.value.status_code == 503
        assert int(caught.value.response.headers["retry-after"]) >= 1


def test_an_error_in_mid_stream_is_raised(tmp_path: Any) -> None:
    with running(tmp_path, engine={"dies_after": 12, "token_s": 0.01}) as site:
        client = OpenAI(base_url=f"{site.url}/v1", api_key="unused", max_retries=0, timeout=30)
        stream = client.chat.completions.create(model="llumi-gm", messages=ASK, stream=True)
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        assert caught.value.code == "unavailable"
