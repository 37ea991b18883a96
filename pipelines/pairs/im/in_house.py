"""Whether the teacher is in-house: nothing that people wrote leaves for a public address.

A host counts as in-house where every address it resolves to is one that the public internet
does not route (loopback, RFC 1918, link-local, carrier-grade NAT, IPv6 unique-local), or
where the settings name it. Asked by the process that starts a run and again by each actor,
on its own node. This guards against a slip in a configuration, not against a hostile
resolver or a private host that forwards what it gets.
"""

import socket
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from configs.errors import ConfigError
from configs.improvement import TeacherSettings

FIELD = "improvement.teacher.base_url"


def require_in_house(settings: TeacherSettings) -> None:
    """Raises ConfigError where the endpoint's host is neither private nor in ``allowed_hosts``."""
    host = urlsplit(settings.base_url).hostname or ""
    if host in {allowed.lower() for allowed in settings.allowed_hosts}:
        return
    found = addresses(host)
    public = next((address for address in found if not is_private(address)), None)
    if public:
        also = "" if public == host else f" resolves to {public}, which"
        raise ConfigError(
            f"{FIELD}: {host}{also} is a public address, and posts and drafts must not leave your network;"
            f" if the host is in-house, add it to improvement.teacher.allowed_hosts"
        )


def addresses(host: str) -> list[str]:
    """What the host resolves to here; raises ConfigError where it does to nothing."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ConfigError(
            f"{FIELD}: {host} cannot be resolved on {socket.gethostname()}; correct it, or where only an outer"
            " gateway knows the name, add it to improvement.teacher.allowed_hosts"
        ) from None
    return sorted({str(entry[4][0]) for entry in found})


def is_private(address: str) -> bool:
    """Whether the public internet does not route the address."""
    parsed = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return not parsed.is_global and not parsed.is_multicast
