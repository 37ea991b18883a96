"""Which version of a model a request goes to."""

from collections import Counter

import pytest
from pydantic import ValidationError

from serving.routes import Route, Routes, choose, second_choice


def route(app: str, share: float) -> Route:
    return Route(app=app, deployment="gm", share=share, info={"path": f"/models/{app}"})


def test_requests_are_divided_by_share() -> None:
    routes = (route("own", 0.9), route("canary", 0.1))
    counts = Counter(choose(routes, f"request-{number}").app for number in range(20_000))
    assert counts["canary"] / 20_000 == pytest.approx(0.1, abs=0.01)


def test_all_drafts_of_one_request_come_from_one_version() -> None:
    routes = (route("own", 0.5), route("canary", 0.5))
    for number in range(50):
        assert len({choose(routes, f"request-{number}").app for _ in range(5)}) == 1


def test_a_larger_share_keeps_the_requests_that_a_smaller_one_had() -> None:
    ids = [f"request-{number}" for number in range(2000)]
    few = {i for i in ids if choose((route("own", 0.9), route("canary", 0.1)), i).app == "canary"}
    many = {i for i in ids if choose((route("own", 0.5), route("canary", 0.5)), i).app == "canary"}
    assert few and few < many


@pytest.mark.parametrize(("shares", "app"), [((1.0, 0.0), "own"), ((0.0, 1.0), "canary")])
def test_a_version_without_a_share_gets_nothing(shares: tuple[float, float], app: str) -> None:
    routes = (route("own", shares[0]), route("canary", shares[1]))
    assert {choose(routes, f"request-{number}").app for number in range(500)} == {app}


def test_what_a_canary_lost_is_asked_of_the_models_own_deployment() -> None:
    own, canary = route("own", 0.5), route("canary", 0.5)
    assert second_choice((own, canary), canary) == own
    assert second_choice((own, canary), own) == own


def test_a_model_without_a_version_or_with_three_is_refused() -> None:
    one = route("own", 1.0)
    for gm in ((), (one, one, one)):
        with pytest.raises(ValidationError, match="gm"):
            Routes(gm=gm, im=(one,))
