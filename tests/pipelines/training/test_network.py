"""Which interface workers talk over."""

import os
from types import SimpleNamespace

import psutil
import pytest
import ray

from configs.errors import ConfigError
from pipelines.training.network import FAMILY, VARIABLES, interface_of, pin_interface


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A node whose Ray address is the loopback's, without any of the variables."""
    for variable in (*VARIABLES, FAMILY):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    return monkeypatch


def pinned() -> list[str]:
    return [os.environ[variable] for variable in VARIABLES]


def test_the_loopback_owns_its_address() -> None:
    assert interface_of("127.0.0.1") == "lo"


def test_an_ipv6_address_is_found_however_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    owned = SimpleNamespace(family=psutil.net_if_addrs()["lo"][0].family.__class__.AF_INET6, address="fd77::1%eth3")
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"eth3": [owned]})
    assert interface_of("fd77:0:0::1") == "eth3"


def test_no_interface_owns_an_address_of_another_host() -> None:
    assert interface_of("203.0.113.77") is None


def test_both_libraries_get_the_interface_of_the_node_s_address(node: pytest.MonkeyPatch) -> None:
    pin_interface()
    assert pinned() == ["lo", "lo"]
    assert FAMILY not in os.environ


def test_nccl_is_told_of_an_ipv6_address(node: pytest.MonkeyPatch) -> None:
    node.setattr(ray.util, "get_node_ip_address", lambda: "fd00::9")
    pin_interface()
    assert os.environ[FAMILY] == "AF_INET6"


def test_an_interface_of_the_environment_stays(node: pytest.MonkeyPatch) -> None:
    node.setenv(VARIABLES[0], "eth7")
    pin_interface()
    assert pinned() == ["eth7", "lo"]


def test_the_setting_comes_before_the_environment(node: pytest.MonkeyPatch) -> None:
    node.setenv(VARIABLES[0], "eth7")
    pin_interface("lo")
    assert pinned() == ["lo", "lo"]


def test_an_interface_that_a_host_lacks_is_named_with_those_it_has(node: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"training\.interface ib0: host .* \(127\.0\.0\.1\) has only .*lo"):
        pin_interface("ib0")
