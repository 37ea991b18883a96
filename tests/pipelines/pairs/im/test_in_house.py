"""Posts and drafts go to hosts of one's own network only."""

import pytest

from configs.errors import ConfigError
from configs.improvement import TeacherSettings
from pipelines.pairs.im.in_house import is_private, require_in_house


def require(url: str, *allowed: str) -> None:
    require_in_house(TeacherSettings(base_url=url, model="m", allowed_hosts=allowed))


@pytest.mark.parametrize(
    "url",
    ["http://localhost:8000/v1", "http://127.0.0.1/v1", "http://10.1.2.3:8000/v1", "http://192.168.0.7/v1",
     "https://172.31.255.1/v1", "http://100.64.0.1/v1", "http://169.254.1.1/v1", "http://[::1]:8000/v1",
     "http://[fd00::1]/v1", "http://[::ffff:10.0.0.1]/v1"],
)  # fmt: skip
def test_hosts_with_private_addresses_are_in_house(url):
    require(url)


@pytest.mark.parametrize(
    "url",
    ["https://8.8.8.8/v1", "http://172.32.0.1/v1", "http://[2001:4860:4860::8888]/v1", "http://[::ffff:8.8.8.8]/v1"],
)
def test_hosts_with_public_addresses_are_not(url):
    with pytest.raises(ConfigError, match=r"public address.*must not leave.*allowed_hosts"):
        require(url)


def test_a_public_host_that_the_settings_name_is_in_house():
    require("https://8.8.8.8/v1", "8.8.8.8")
    require("https://Teacher.Example.org/v1", "teacher.example.org")


def test_naming_another_host_allows_nothing():
    with pytest.raises(ConfigError, match="public address"):
        require("https://8.8.8.8/v1", "8.8.4.4")


def test_a_name_that_resolves_to_nothing_is_refused_with_the_way_out():
    with pytest.raises(ConfigError, match=r"nobody\.invalid cannot be resolved.*allowed_hosts"):
        require("http://nobody.invalid/v1")


def test_one_public_address_among_private_ones_is_enough_to_refuse(monkeypatch):
    entries = [(2, 1, 6, "", (address, 0)) for address in ("10.0.0.1", "8.8.8.8")]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: entries)
    with pytest.raises(ConfigError, match=r"teacher\.corp resolves to 8\.8\.8\.8, which is a public address"):
        require("http://teacher.corp/v1")


def test_multicast_is_not_private():
    assert not is_private("224.0.0.1")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("10.0.0.5:8000/v1", "expected a URL"),
        ("ftp://10.0.0.5/v1", "expected a URL"),
        ("http://", "expected a URL"),
        ("http://me:word@10.0.0.5/v1", "api_key_env"),
        ("http://10.0.0.5/v1?key=x", "query"),
    ],
)
def test_what_is_no_endpoint_is_refused(url, why):
    with pytest.raises(ValueError, match=why):
        TeacherSettings(base_url=url, model="m")
