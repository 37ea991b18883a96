"""Which interface workers talk over."""

import os

import pytest
import ray

from pipelines.training.network import VARIABLES, interface_of, pin_interface


def test_the_loopback_owns_its_address() -> None:
    assert interface_of("127.0.0.1") == "lo"


def test_no_interface_owns_an_address_of_another_host() -> None:
    assert interface_of("203.0.113.77") is None


def test_both_libraries_get_the_interface_of_the_node_s_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    pin_interface()
    assert [os.environ[variable] for variable in VARIABLES] == ["lo", "lo"]


def test_an_interface_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLES[0], "eth7")
    monkeypatch.setenv(VARIABLES[1], "")
    monkeypatch.delenv(VARIABLES[1])
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    pin_interface()
    assert os.environ[VARIABLES[0]] == "eth7"
