"""Ports for servers that the tests start: below those that the system gives to outgoing connections.

A port that the system picked for us may go to a connection of any other process before the
server binds it; a Ray head whose agent meets that ends, and the whole cluster with it.
"""

import random
import socket

RANGE = range(20_000, 30_000)
"""Above Ray's workers (10002-19999), below Serve's replicas behind HAProxy (30000-31000) and what Linux gives away."""


def free_port() -> int:
    """A port that nobody listens on."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, each another."""
    found: list[int] = []
    for port in random.SystemRandom().sample(RANGE, len(RANGE)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"fewer than {count} free ports in {RANGE}")
