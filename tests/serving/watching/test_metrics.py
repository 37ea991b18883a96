"""What the service counts, and that no text gets into a label."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from serving.watching import definitions as d
from serving.watching.meters import PlainMeters
from serving.watching.metrics import MOST_VERSIONS, Metrics, name
from serving.watching.recent import Recent, merged


@pytest.fixture
def counted() -> Metrics:
    return Metrics(PlainMeters())


def exported(counted: Metrics) -> dict[str, float]:
    """Every sample as Prometheus reads it, by name and labels."""
    assert isinstance(counted.meters, PlainMeters)
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(counted.meters.text())
        for sample in family.samples
    }


def count_all(counted: Metrics) -> None:
    """Call every method once."""
    counted.began()
    counted.request("/v1/generate", 200, 1.5)
    counted.first_byte("/v1/generate", 0.5)
    counted.error("overloaded")
    counted.answering("gm", +1)
    counted.first_token("gm", 0.2)
    counted.tokens("gm", 120, 40, 1.2)
    counted.cancelled("gm")
    counted.triage("acute", "gm", "4f1c09aa3b21")
    counted.answered("gm", "4f1c09aa3b21", ("medication",))
    counted.regenerated("gm", "4f1c09aa3b21")
    counted.refused("acute", "gm", "4f1c09aa3b21")
    counted.limited("rate")
    counted.replica_started("im", 7)


def test_each_event_is_exported_under_its_name_and_labels(counted: Metrics) -> None:
    count_all(counted)
    found = exported(counted)
    assert found["ray_llumi_requests_total route=/v1/generate status=200"] == 1
    assert found["ray_llumi_request_seconds_sum route=/v1/generate"] == 1.5
    assert found["ray_llumi_first_byte_seconds_count route=/v1/generate"] == 1
    assert found["ray_llumi_errors_total code=overloaded"] == 1
    assert found["ray_llumi_first_token_seconds_bucket le=0.25 model=gm"] == 1
    assert found["ray_llumi_first_token_seconds_bucket le=0.1 model=gm"] == 0
    assert found["ray_llumi_prompt_tokens_total model=gm"] == 120
    assert found["ray_llumi_new_tokens_total model=gm"] == 40
    assert found["ray_llumi_cancelled_total model=gm"] == 1
    version = "version=4f1c09aa3b21"
    assert found[f"ray_llumi_triage_total level=acute model=gm {version}"] == 1
    assert found[f"ray_llumi_answers_total model=gm {version}"] == 1
    assert found[f"ray_llumi_guard_total model=gm rule=medication {version}"] == 1
    assert found[f"ray_llumi_regenerations_total model=gm {version}"] == 1
    assert found[f"ray_llumi_refusals_total model=gm reason=acute {version}"] == 1
    assert found["ray_llumi_limited_total kind=rate"] == 1
    assert found["ray_llumi_replica_starts_total model=im"] == 1


def test_every_definition_is_counted_somewhere_and_exported_as_it_says(counted: Metrics) -> None:
    count_all(counted)
    names = {key.split(" ")[0] for key in exported(counted)}
    assert {exported for metric in d.ALL for exported in metric.exported} <= names
    seen = counted.seen(60)
    assert {*seen.counters, *seen.gauges, *seen.histograms} == {metric.name for metric in d.ALL}


def test_requests_in_progress_go_up_and_down_and_never_below_nothing(counted: Metrics) -> None:
    for change in (1, 1, -1):
        counted.answering("gm", change)
    assert exported(counted)["ray_llumi_answers_in_progress model=gm"] == 1
    counted.request(None, 404, 0.1)
    assert exported(counted)["ray_llumi_requests_in_progress"] == 0
    assert exported(counted)["ray_llumi_requests_total route=none status=404"] == 1


@given(st.text(min_size=1))
def test_what_is_no_name_never_becomes_a_label(text: str) -> None:
    assert name(text) in {text, "other"}
    assert " " not in name(text)
    assert name(f"I feel {text}") == "other"


def test_a_text_given_as_a_label_by_mistake_is_counted_without_it(counted: Metrics) -> None:
    counted.refused("I want to end it", "gm", "and nobody knows")
    counted.error("zebrafish are my only friends")
    found = exported(counted)
    assert found["ray_llumi_refusals_total model=gm reason=other version=other"] == 1
    assert not [key for key in found if "zebrafish" in key or "want" in key]


def test_versions_are_told_apart_up_to_a_bound_so_that_labels_stay_few(counted: Metrics) -> None:
    for number in range(MOST_VERSIONS + 20):
        counted.answered("gm", f"v{number}")
    counted.answered("im", None)
    counted.answered("gm", "v0")
    found = {key: value for key, value in exported(counted).items() if key.startswith("ray_llumi_answers_total")}
    assert len(found) == MOST_VERSIONS + 2
    assert found["ray_llumi_answers_total model=gm version=v0"] == 2
    assert found["ray_llumi_answers_total model=gm version=other"] == 20
    assert found["ray_llumi_answers_total model=im version=other"] == 1


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_recent_numbers_are_those_of_the_window() -> None:
    clock = Clock()
    recent = Recent(clock)
    recent.add(d.REQUESTS, 1, ("/v1/generate", "200"))
    clock.now += 400
    for _ in range(6):
        recent.add(d.REQUESTS, 1, ("/v1/generate", "200"))
    recent.add(d.REQUESTS, 1, ("/v1/generate", "503"))
    assert recent.seen(60).total(d.REQUESTS) == 7
    assert recent.seen(60).total(d.REQUESTS, ("/v1/generate", "503")) == 1
    assert recent.seen(60).rate(d.REQUESTS) == pytest.approx(7 / 60)
    assert recent.seen(900).total(d.REQUESTS) == 8
    assert recent.seen(900).seconds == 400  # it has not been running for longer
    clock.now += 2000
    recent.add(d.NEW_TOKENS, 1, ("gm",))
    assert recent.seen(10_000).total(d.REQUESTS) == 0
    assert len(recent._steps) == 1


def test_a_rate_is_over_the_time_that_was_counted_which_is_whole_steps() -> None:
    clock = Clock()
    recent = Recent(clock)
    for _ in range(100):
        clock.now += 1
        recent.add(d.NEW_TOKENS, 5, ("gm",))
    clock.now += 9
    for window in (1, 10, 30, 60):
        seen = recent.seen(window)
        assert window <= seen.seconds < window + 10
        assert seen.rate(d.NEW_TOKENS) <= 5
    assert recent.seen(60).rate(d.NEW_TOKENS) == pytest.approx(5 * 61 / 69)  # 61 of them since 1040


def test_numbers_of_several_replicas_add_up_and_the_last_error_is_the_latest() -> None:
    both = []
    for error_at, seconds in ((50.0, 0.02), (70.0, 0.04)):
        recent = Recent()
        recent.set(d.LAST_ERROR, error_at, ("overloaded",))
        recent.set(d.IN_PROGRESS, 3, ())
        recent.observe(d.FIRST_TOKEN, seconds, ("gm",))
        both.append(recent.seen(60))
    seen = merged(both)
    assert seen.gauges[d.LAST_ERROR.name] == {("overloaded",): 70.0}
    assert seen.gauges[d.IN_PROGRESS.name] == {(): 6}
    assert seen.histograms[d.FIRST_TOKEN.name][("gm",)][-1] == pytest.approx(0.06)


def test_quantiles_lie_in_the_bucket_that_holds_them() -> None:
    recent = Recent()
    assert recent.seen(60).quantile(d.FIRST_TOKEN, 0.5) is None
    for seconds in [0.3] * 90 + [7.0] * 10:
        recent.observe(d.FIRST_TOKEN, seconds, ("gm",))
    seen = recent.seen(60)
    assert 0.25 < (seen.quantile(d.FIRST_TOKEN, 0.5) or 0) <= 0.5
    assert 5 < (seen.quantile(d.FIRST_TOKEN, 0.95) or 0) <= 10
    assert seen.quantile(d.FIRST_TOKEN, 0.5, ("im",)) is None
    recent.observe(d.FIRST_TOKEN, 1e6, ("im",))
    assert recent.seen(60).quantile(d.FIRST_TOKEN, 0.5, ("im",)) == d.SECONDS[-1]
