"""GPUs that can be rented: memory, peak, bandwidth and what an hour of one costs.

Peaks are NVIDIA's data sheets, dense bfloat16 (half of what they call sparse). Memory is what
``torch.cuda`` reports of a whole card. Prices are public on-demand list prices for one GPU of an
instance, Linux, us-east-1, as of ``PRICED``: they move, regions differ, reserved and spot
capacity costs less, so ``llumi plan --price`` takes the reader's own.
"""

import re
from dataclasses import dataclass

from configs.errors import UsageError

PRICED = "mid-2025"


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU."""

    name: str
    memory: float
    """GiB that a process can take from an empty card."""
    peak: float
    """Dense bfloat16, FLOP/s."""
    bandwidth: float
    """Of its memory, bytes/s."""
    price: float
    """Dollars an hour."""
    source: str
    """Where the price is from."""
    names: tuple[str, ...] = ()
    """What else it is called: Ray's accelerator type first."""


GPUS: tuple[Gpu, ...] = (
    Gpu("A100-40", 39.4, 312e12, 1.555e12, 2.74, "AWS p4d.24xlarge / 8", ("A100-40G", "A100 SXM4 40GB", "A100")),
    Gpu("A100-80", 79.2, 312e12, 2.039e12, 3.43, "AWS p4de.24xlarge / 8", ("A100-80G", "A100 SXM4 80GB")),
    Gpu("H100-PCIe", 79.2, 756e12, 2.0e12, 2.49, "Lambda gpu_1x_h100_pcie", ("H100 PCIe",)),
    Gpu("H100", 79.2, 989.4e12, 3.35e12, 6.88, "AWS p5.48xlarge / 8", ("H100 80GB HBM3", "H100-SXM")),
    Gpu("H200", 139.8, 989.4e12, 4.8e12, 7.91, "AWS p5en.48xlarge / 8", ("H200-SXM",)),
    Gpu("B200", 178.3, 2250e12, 8.0e12, 14.24, "AWS p6-b200.48xlarge / 8", ("B200-SXM",)),
    Gpu("L40S", 44.4, 362.1e12, 0.864e12, 1.86, "AWS g6e.xlarge"),
    Gpu("A10G", 22.0, 70e12, 0.6e12, 1.01, "AWS g5.xlarge"),
    Gpu("L4", 22.0, 121e12, 0.3e12, 0.80, "AWS g6.xlarge"),
)
DEFAULT = "H100"


def gpu(name: str) -> Gpu:
    """The GPU of a name as people, drivers and Ray write it; raises UsageError naming the known ones."""
    wanted = plain(name)
    for one in GPUS:
        if wanted in {plain(one.name), *map(plain, one.names)}:
            return one
    raise UsageError(f"no GPU {name}; there are {', '.join(one.name for one in GPUS)}")


def plain(name: str) -> str:
    """A name without its maker, spaces and case."""
    return re.sub(r"[^a-z0-9]", "", name.lower().removeprefix("nvidia"))
