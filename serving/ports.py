"""Ports to listen on that no other process is likely to take before we do.

A port that the system picks for us may go to an outgoing connection of any process before the server
binds it; what meets that does not start.
"""

import random
import socket

from configs.errors import PortInUse

PORTS = range(20_000, 30_000)
"""Above Ray's workers (10002-19999), below Serve's replicas behind HAProxy (30000-31000) and what Linux gives away."""


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on, each another; raises PortInUse where there are fewer."""
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise PortInUse(f"fewer than {count} free ports from {PORTS.start} to {PORTS.stop} on this machine")
