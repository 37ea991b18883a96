"""Spans as a real OTLP receiver gets them."""

import asyncio
from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from configs.watching import TraceSettings
from pipelines.generation.engine import Sampling, complete
from serving.watching import traces
from serving.watching.engine import WatchedEngine
from serving.watching.meters import PlainMeters
from serving.watching.metrics import Metrics
from tests.pipelines.generation.scripted import ScriptedEngine
from tests.serving.watching.otlp import Received, attributes, receiving

SECRET = "zebrafish"
PROMPT = [{"role": "user", "content": f"nobody asks why, {SECRET}"}]


@pytest.fixture
def received() -> Iterator[Received]:
    with receiving() as receiver:
        traces.setup(TraceSettings(endpoint=receiver.endpoint), "ingress")
        yield receiver
        traces.shutdown()


def test_without_an_endpoint_nothing_is_traced() -> None:
    traces.setup(TraceSettings(), "ingress")
    with traces.span("ingress", route="/v1/generate") as told:
        assert not told.is_recording()
        assert traces.carrier() == {}


def test_spans_hang_together_across_processes_by_what_the_caller_carries(received: Received) -> None:
    with traces.span("POST /v1/generate"):
        with traces.span("gm", current=False) as called:
            carried = traces.carrier(called)
        with traces.span("triage"):
            pass
    with traces.span("engine", parent=carried):  # as another process would
        pass
    traces.shutdown()
    spans = received.spans()
    assert set(spans) == {"POST /v1/generate", "gm", "triage", "engine"}
    assert len({span.trace_id for span in spans.values()}) == 1
    assert spans["POST /v1/generate"].parent_span_id == b""
    assert spans["gm"].parent_span_id == spans["triage"].parent_span_id == spans["POST /v1/generate"].span_id
    assert spans["engine"].parent_span_id == spans["gm"].span_id
    assert {service for service, _ in received.all()} == {"llumi-ingress"}


def test_a_client_of_ours_that_traces_finds_its_request_below_its_own_span(received: Received) -> None:
    header = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01", "tracestate": f"vendor={SECRET}"}
    with traces.span("ingress", parent=header):
        assert SECRET not in str(traces.carrier())
    with traces.span("unsampled", parent={"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-00"}):
        pass
    with traces.span("nonsense", parent={"traceparent": SECRET}):
        pass
    traces.shutdown()
    spans = received.spans()
    assert set(spans) == {"ingress", "nonsense"}
    assert (spans["ingress"].trace_id.hex(), spans["ingress"].parent_span_id.hex()) == ("ab" * 16, "cd" * 8)
    assert spans["ingress"].trace_state == ""
    assert spans["nonsense"].parent_span_id == b""


def test_an_error_is_told_by_its_type_and_a_text_by_nothing(received: Received) -> None:
    with pytest.raises(ValueError, match=SECRET), traces.span("broken", rule=f"I {SECRET}", rules=3):
        raise ValueError(f"cannot parse {SECRET}")
    traces.shutdown()
    told = received.spans()["broken"]
    assert told.status.message == "ValueError"
    assert attributes(told) == {"llumi.rule": "other", "llumi.rules": 3}
    assert not told.events
    assert not [body for body in received.raw if SECRET.encode() in body]


def test_the_share_that_is_asked_for_is_traced(received: Received) -> None:
    traces.shutdown()
    traces.setup(TraceSettings(endpoint=received.endpoint, sample=0.0), "ingress")
    with traces.span("never"):
        pass
    traces.shutdown()
    assert received.spans() == {}


def test_an_engine_tells_tokens_and_the_first_of_them_and_no_word(received: Received) -> None:
    counted = Metrics(PlainMeters())

    async def write() -> None:
        engine = ScriptedEngine(answer=f"I hear you {SECRET}")
        await engine.start()
        with traces.span("gm"):
            carried = traces.carrier()
        await complete(WatchedEngine(engine, "gm", carried, counted), "a", PROMPT, Sampling(16))

    asyncio.run(write())
    traces.shutdown()
    spans = received.spans()
    assert spans["engine"].parent_span_id == spans["gm"].span_id
    told = attributes(spans["engine"])
    assert (told["llumi.model"], told["llumi.new_tokens"], told["llumi.finish"]) == ("gm", 4, "stop")
    assert [event.name for event in spans["engine"].events] == ["first token"]
    assert not [body for body in received.raw if SECRET.encode() in body]
    assert counted.seen(60).counters["llumi_new_tokens"] == {("gm",): 4}
    assert sum(counted.seen(60).histograms["llumi_first_token_seconds"][("gm",)][:-1]) == 1


def test_an_answer_that_is_given_up_is_counted_as_cancelled_and_one_that_fails_is_not(received: Received) -> None:
    counted = Metrics(PlainMeters())

    async def leave() -> None:
        engine = ScriptedEngine(answer="a " * 50, token_s=0.001)
        await engine.start()
        pieces = WatchedEngine(engine, "gm", None, counted).generate("a", PROMPT, Sampling(60))
        await anext(pieces)
        await pieces.aclose()
        assert engine.in_progress() == 0
        assert counted.seen(60).gauges["llumi_answers_in_progress"] == {("gm",): 0}
        engine.die()
        with pytest.raises(Exception, match="engine"):
            await complete(WatchedEngine(engine, "gm", None, counted), "b", PROMPT, Sampling(60))

    asyncio.run(leave())
    traces.shutdown()
    assert counted.seen(60).counters["llumi_cancelled"] == {("gm",): 1}
    assert {attributes(span).get("llumi.cancelled") for _, span in received.all()} == {True, None}


def test_an_unreachable_collector_costs_nothing_but_its_traces() -> None:
    with receiving() as gone:
        endpoint = gone.endpoint
    traces.setup(TraceSettings(endpoint=endpoint), "ingress")
    with traces.span("lost"):
        pass
    traces.shutdown()


def test_an_address_that_cannot_be_an_endpoint_is_refused() -> None:
    with pytest.raises(ValidationError, match="4318"):
        TraceSettings(endpoint="collector:4317")
