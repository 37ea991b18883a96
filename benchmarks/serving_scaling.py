"""How the service grows: from one replica to three under a step of load, and from none.

Clients stream drafts of 64 tokens of a tiny random model, one after the other without a pause; first two
of them, then twelve more at a stroke. *First text* is what a client sees: the first event of a stream
with text in it, which the guard has let pass. All runs on one machine: with few cores further replicas
bring no more CPU, and a replica that starts takes some away from those that answer.
"""

import statistics
import time
from collections.abc import Iterable
from typing import Any

from benchmarks.serving_setup import service_of
from tests.serving.load import Load

CALM, STEP = 2, 12
"""Clients before the step, and those that come with it."""
REPLICAS = 3
UPSCALE_DELAY_S = 1
SETTLED_S = 15
"""Seconds of load after the last replica came."""


def scaling() -> dict[str, Any]:
    """When replicas came, and the time to the first text before the step, until the first of them, and with all."""
    gm = (f"max_replicas={REPLICAS}", "target_ongoing_requests=2", f"upscale_delay_s={UPSCALE_DELAY_S}")
    grown = [f"serving.gm.{setting}" for setting in (*gm, "downscale_delay_s=600")]
    with service_of(*grown, "generation.max_new_tokens=64") as (url, _), Load(url, CALM, ("stream",)) as calm:
        calm.wait(20)  # warm
        quiet = time.monotonic()
        calm.wait(100)
        stepped = time.monotonic()
        with Load(url, STEP, ("stream",)) as step:
            reached = replicas_from(stepped)
            settled = time.monotonic()
            time.sleep(SETTLED_S)
        ended = time.monotonic()
    first = [*calm.account.first, *step.account.first]
    whole = [pair for load in (calm, step) for pair in zip(load.account.times, load.account.seconds, strict=True)]
    windows = {
        "before": (quiet, stepped),
        "until the second replica": (stepped, stepped + reached[2]),
        f"with {REPLICAS} replicas": (settled, ended),
    }
    return {
        "clients": {"before": CALM, "after": CALM + STEP},
        "upscale_delay_s": UPSCALE_DELAY_S,
        "replicas_after_s": {str(number): round(seconds, 1) for number, seconds in reached.items()},
        "first_text": {name: times(first, *window) for name, window in windows.items()},
        "whole_answer": {name: times(whole, *window) for name, window in windows.items()},
        "sent": calm.account.sent + step.account.sent,
        "refused_by_name": dict(calm.account.refused + step.account.refused),
        "lost": dict(calm.account.lost + step.account.lost),
    }


def replicas_from(moment: float) -> dict[int, float]:
    """Seconds after ``moment`` at which the second replica of GM ran, and each further one."""
    from serving import service

    reached: dict[int, float] = {}
    while len(reached) < REPLICAS - 1:
        for number in range(2, service.running_replicas("llumi-gm", "gm") + 1):
            reached.setdefault(number, time.monotonic() - moment)
        if time.monotonic() - moment > 120:
            raise RuntimeError(f"after two minutes there were no {REPLICAS} replicas: {reached}")
        time.sleep(0.1)
    return reached


def times(sent: Iterable[tuple[float, float]], begin: float, end: float) -> dict[str, Any]:
    """Of what was sent between two moments how many there are, their median and 95th percentile in ms."""
    found = [seconds for moment, seconds in sent if begin <= moment < end]
    cuts = statistics.quantiles(found, n=20)
    return {"streams": len(found), "median_ms": round(1000 * cuts[9], 1), "p95_ms": round(1000 * cuts[18], 1)}


def cold_start() -> dict[str, Any]:
    """The first answer of a model that slept, beside the second: how long a client waits for a replica to start."""
    from serving import service

    with service_of("serving.gm.min_replicas=0", "serving.gm.downscale_delay_s=1") as (url, _):
        end = time.monotonic() + 120
        while service.running_replicas("llumi-gm", "gm"):
            if time.monotonic() > end:
                raise RuntimeError("the model does not go to sleep")
            time.sleep(0.2)
        with Load(url, 1, ("generate",)) as load:
            load.wait(2, seconds=120)
    first, second = load.account.seconds[:2]
    return {"first_s": round(first, 2), "second_s": round(second, 3), "lost": dict(load.account.lost)}
