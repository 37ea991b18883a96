"""Where the service listens: checked before anything is started."""

import errno
import ipaddress
import socket

from configs.errors import PortInUse, UsageError
from configs.serving import ServingSettings


def check_exposure(serving: ServingSettings, host: str | None = None) -> None:
    """Raises UsageError where others could reach a service that asks nobody who they are.

    ``host`` is the address in the place of ``serving.host``, where something else sets it.
    """
    host = serving.host if host is None else host
    if serving.auth != "none" or is_loopback(host):
        return
    raise UsageError(
        f"{host} can be reached from other machines and serving.auth=none asks nobody who they are: "
        "use --set serving.auth=keys (`llumi keys create CONFIG --name NAME` makes a key), "
        "or --set serving.host=127.0.0.1"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_port(host: str, port: int) -> None:
    """Raises PortInUse where another process listens on ``port``, UsageError where it cannot be bound at all."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror:
        raise UsageError(f"serving.host={host} is not an address or name that this machine knows") from None
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just left is free
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(
                    f"port {port} on {host} is in use by another process: stop it, or choose another with "
                    "--set serving.port="
                ) from None
            raise UsageError(f"cannot listen on serving.host={host}, serving.port={port}: {error.strerror}") from None


def base_url(host: str, port: int, *, tls: bool = False) -> str:
    """URL at which this machine reaches the service."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    scheme = "https" if tls else "http"
    return f"{scheme}://[{reached}]:{port}" if ":" in reached else f"{scheme}://{reached}:{port}"
