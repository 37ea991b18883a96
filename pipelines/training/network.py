"""Which network interface workers talk over, on hosts that have several.

Gloo and NCCL guess an interface from the host's name and often end up on the loopback or on
a container bridge, where other hosts do not answer. Ray knows the address its nodes reach
each other by: the interface that owns it is the right one, unless ``training.interface`` (a
fast network beside the one Ray talks over) or the variables of gloo and NCCL name another.
``PinnedTorchConfig`` sets it before the process group starts.
"""

import os
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

from configs.errors import ConfigError
from pipelines.training.notice import listen

VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
FAMILY = "NCCL_SOCKET_FAMILY"


def pin_interface(chosen: str | None = None) -> None:
    """Have gloo and NCCL use the interface ``chosen``, else that of this node's Ray address.

    The latter leaves alone what the environment says. Raises ConfigError naming this host's
    interfaces where it has none of that name.
    """
    address = ray.util.get_node_ip_address()
    known = psutil.net_if_addrs()
    if chosen is not None and chosen not in known:
        raise ConfigError(
            f"training.interface {chosen}: host {socket.gethostname()} ({address}) has only {', '.join(sorted(known))}"
        )
    name = chosen or interface_of(address)
    for variable in VARIABLES:
        if name is not None and (chosen or not os.environ.get(variable)):
            os.environ[variable] = name
    if ":" in address:
        os.environ.setdefault(FAMILY, "AF_INET6")


def interface_of(address: str) -> str | None:
    """Name of the interface that owns the IPv4 or IPv6 address, None where there is none."""
    wanted = ip_address(address)
    for name, owned in psutil.net_if_addrs().items():
        for one in owned:
            if one.family in (socket.AF_INET, socket.AF_INET6) and ip_address(one.address.split("%")[0]) == wanted:
                return str(name)
    return None


class PinnedTorchBackend(_TorchBackend):
    """Ray's torch backend, with the interface set on every worker first."""

    def on_start(self, worker_group: Any, backend_config: "PinnedTorchConfig") -> None:
        worker_group.execute(pin_interface, backend_config.interface)
        worker_group.execute(listen)  # in the worker's main thread, where alone Python takes a signal handler
        super().on_start(worker_group, backend_config)


@dataclass
class PinnedTorchConfig(TorchConfig):
    """Ray's torch configuration, with ``PinnedTorchBackend``."""

    interface: str | None = None
    """Interface that workers talk over; None takes that of each node's Ray address."""

    @property
    def backend_cls(self) -> type[PinnedTorchBackend]:
        return PinnedTorchBackend
