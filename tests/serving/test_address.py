"""Where the service listens."""

import socket

import pytest

from configs.access import Auth
from configs.errors import PortInUse, UsageError
from configs.serving import ServingSettings
from serving.address import base_url, check_exposure, check_port, is_loopback
from tests.ports import free_port


@pytest.mark.parametrize("auth", ["none", "keys"])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.4.5", "localhost", "::1"])
def test_this_machine_may_always_be_served(host: str, auth: Auth) -> None:
    assert is_loopback(host)
    check_exposure(ServingSettings(host=host, auth=auth))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "example.org", "localhost.example.org", "0", ""])
def test_others_are_served_only_when_they_are_asked_who_they_are(host: str) -> None:
    with pytest.raises(UsageError, match=r"serving\.auth=keys.*127\.0\.0\.1"):
        check_exposure(ServingSettings(host=host, auth="none"))
    with pytest.raises(UsageError, match=r"serving\.auth=keys.*127\.0\.0\.1"):
        check_exposure(ServingSettings(auth="none"), host)
    check_exposure(ServingSettings(host=host))


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=str(port)):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


def test_a_port_that_was_just_left_is_free() -> None:
    port = free_port()
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        client = socket.create_connection(("127.0.0.1", port))
        connection, _ = server.accept()
        connection.close()  # the server's side closes first and lingers
        client.close()
    check_port("127.0.0.1", port)


def test_an_address_of_another_machine_cannot_be_bound() -> None:
    with pytest.raises(UsageError, match="203"):
        check_port("203.0.113.7", free_port())


def test_the_service_is_reached_at_a_real_address() -> None:
    assert base_url("127.0.0.1", 80) == "http://127.0.0.1:80"
    assert base_url("0.0.0.0", 80) == "http://127.0.0.1:80"
    assert base_url("::", 80) == "http://[::1]:80"
