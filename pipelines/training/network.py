"""Which network interface workers talk over, on hosts that have several.

Gloo and NCCL guess an interface from the host's name and often end up on the loopback or on
a container bridge, where other hosts do not answer. Ray knows the address its nodes reach
each other by: the interface that owns it is the right one. ``PinnedTorchConfig`` sets it
before the process group starts; ``pin_interface`` also serves as ``worker_process_setup_hook``.
"""

import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
SIOCGIFADDR = 0x8915


def pin_interface() -> None:
    """Have gloo and NCCL use the interface of this node's Ray address, unless the user chose one."""
    name = interface_of(ray.util.get_node_ip_address())
    if name is not None:
        for variable in VARIABLES:
            os.environ.setdefault(variable, name)


def interface_of(address: str) -> str | None:
    """Name of the interface that owns the IPv4 address, None where there is none (Linux only)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # an interface without an IPv4 address
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


class PinnedTorchBackend(_TorchBackend):
    """Ray's torch backend, with the interface set on every worker first."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(pin_interface)
        super().on_start(worker_group, backend_config)


@dataclass
class PinnedTorchConfig(TorchConfig):
    """Ray's torch configuration, with ``PinnedTorchBackend``."""

    @property
    def backend_cls(self) -> type[PinnedTorchBackend]:
        return PinnedTorchBackend
