"""What becomes of every request at 80 % of capacity while replicas die: sent = answered + refused by name + lost.

Two replicas of everything and a tiny random model. Capacity is what twelve clients without a pause get
answered; then clients keep to 80 % of it for ten minutes, and each minute the oldest replica of GM, of
the ingress and of IM in turn is killed with -9. No client asks twice. ``LLUMI_SOAK_S`` sets another length.
"""

import os
import statistics
import time
from collections import Counter
from typing import Any

from benchmarks.serving_setup import service_of
from tests.serving.load import Account, Load
from tests.serving.processes import processes

SHARE = 0.8
"""Of the capacity."""
KINDS = ("generate", "improve")
"""No streams: what was shown of one when a replica dies cannot be taken back, so it ends with an error."""
VICTIMS = {"gm": "ServeReplica:llumi-gm:gm", "ingress": "ServeReplica:llumi:ingress", "im": "ServeReplica:llumi-im:im"}


def soak() -> dict[str, Any]:
    """The account, capacity and rates, and which replicas were killed."""
    length = float(os.environ.get("LLUMI_SOAK_S", "600"))
    two = [f"serving.{name}.{limit}_replicas=2" for name in VICTIMS for limit in ("min", "max")]
    with service_of(*two, "serving.gm.cpus=0.2", "serving.im.cpus=0.2") as (url, _):
        found = capacity(url, min(20.0, length / 4))
        started, killed = time.monotonic(), list[str]()
        every = min(60.0, length / 4)
        with Load(url, 24, KINDS, rate=SHARE * found) as load:
            while time.monotonic() - started < length - 1:
                time.sleep(min(every, max(0.0, started + length - time.monotonic())))
                if time.monotonic() - started < length - 1:
                    killed.append(kill(list(VICTIMS)[len(killed) % len(VICTIMS)]))
        seconds = time.monotonic() - started
    return {
        "seconds": round(seconds),
        "capacity_per_s": round(found, 1),
        "sent_per_s": round(load.account.sent / seconds, 1),
        "share_of_capacity": round(load.account.sent / seconds / found, 2),
        "killed": dict(Counter(killed)),
        **told(load.account),
    }


def capacity(url: str, seconds: float) -> float:
    """Requests a second that twelve clients get answered."""
    with Load(url, 12, KINDS) as load:
        load.wait(40)  # warm
        begun, answered = time.monotonic(), load.account.answered.total()
        time.sleep(seconds)
        return (load.account.answered.total() - answered) / (time.monotonic() - begun)


def kill(name: str) -> str:
    """Kill the oldest replica that runs; its deployment's name, or that there was none."""
    alive = processes(VICTIMS[name])
    if not alive:
        return f"no {name} to kill"
    alive[0].kill()
    return name


def told(account: Account) -> dict[str, Any]:
    """The account; raises RuntimeError where a request is not in it."""
    if not account.balanced():
        raise RuntimeError(f"requests are missing: {account.sent} sent, {account.answered}, {account.refused}")
    cuts = statistics.quantiles(account.seconds, n=100)
    return {
        "sent": account.sent,
        "answered": account.answered.total(),
        "refused_by_name": dict(account.refused),
        "lost": dict(account.lost),
        "p50_s": round(cuts[49], 3),
        "p99_s": round(cuts[98], 3),
    }
