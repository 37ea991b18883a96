"""A port for a server that a test starts."""

from serving.ports import free_ports

__all__ = ["free_port", "free_ports"]


def free_port() -> int:
    """A port that nobody listens on."""
    return free_ports(1)[0]
