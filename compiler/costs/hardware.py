"""GPUs: their vendors' figures, and the links between them.

Rates are dense, without sparsity. A link is a GPU's one-way bandwidth within its node; the network
is a GPU's share of its node's one-way bandwidth, in the usual machines with it.
"""

import re
from functools import lru_cache

from ...spec.record import Record

GIB = 2**30
_TERA, _GIGA = 10**12, 10**9


HOPPER, BLACKWELL = 9.0, 10.0
"""Compute capabilities of CUDA."""


class Gpu(Record):
    """A GPU in its usual machine.

    Attributes:
        name: as specs write it.
        memory: bytes.
        bandwidth: of its memory, bytes per second.
        bf16, fp32: peak FLOPs per second of matrix products, dense; fp32 without TF32, which
            PyTorch leaves off.
        fp8, fp4: the same in fp8 (mxfp8 too) and in nvfp4; 0 if unsupported.
        link, network: bytes per second, one way, to a GPU of its node and of another one.
        watts: its power limit.
        capability: the compute capability of CUDA (developer.nvidia.com/cuda-gpus); 0 for others.
        source: of the figures.
    """

    name: str
    memory: int
    bandwidth: float
    bf16: float
    fp32: float
    fp8: float
    fp4: float
    link: float
    network: float
    watts: float
    capability: float
    source: str


def _gpu(
    name: str,
    memory: int,
    bandwidth: float,
    bf16: float,
    fp32: float,
    fp8: float,
    link: float,
    network: float,
    watts: float,
    capability: float,
    source: str,
    fp4: float = 0,
) -> Gpu:
    """Memory in GiB, rates in TB/s and TFLOP/s, links in GB/s, power in W."""
    return Gpu(
        name=name,
        memory=memory * GIB,
        bandwidth=bandwidth * _TERA,
        bf16=bf16 * _TERA,
        fp32=fp32 * _TERA,
        fp8=fp8 * _TERA,
        fp4=fp4 * _TERA,
        link=link * _GIGA,
        network=network * _GIGA,
        watts=watts,
        capability=capability,
        source=source,
    )


GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("A100 40GB", 40, 1.555, 312, 19.5, 0, 300, 25, 400, 8.0, "NVIDIA A100 datasheet, SXM"),
        _gpu("A100 80GB", 80, 2.039, 312, 19.5, 0, 300, 25, 400, 8.0, "NVIDIA A100 datasheet, SXM"),
        _gpu(
            "A800",
            80,
            2.039,
            312,
            19.5,
            0,
            200,
            25,
            400,
            8.0,
            "an A100 80GB with NVLink of 400 GB/s both ways: tweakers.net/nieuws/203182",
        ),
        _gpu(
            "H800",
            80,
            3.35,
            989,
            67,
            1979,
            200,
            50,
            700,
            9.0,
            "an H100 with NVLink of 400 GB/s both ways, and 400G cards: arXiv:2505.09343 §4",
        ),
        _gpu(
            "H20",
            96,
            4.0,
            148,
            44,
            296,
            450,
            50,
            400,
            9.0,
            "no data sheet is public; willitrunai.com/es/gpus/h20-96gb, and fp32: "
            "zangshuxian.com/new/674733024499207168",
        ),
        _gpu(
            "L40S",
            48,
            0.864,
            362.05,
            91.6,
            733,
            32,
            25,
            350,
            8.9,
            "NVIDIA L40S datasheet; PCIe 4.0, no NVLink; a network of 200 Gbit/s is assumed",
        ),
        _gpu(
            "H100 96GB",
            96,
            2.4,
            989,
            67,
            1979,
            450,
            50,
            500,
            9.0,
            "torchtitan, benchmarks/llama3_h100_202412_torchtitan.md: HBM2e, power limit 500 W",
        ),
        _gpu("H100 80GB", 80, 3.35, 989, 67, 1979, 450, 50, 700, 9.0, "NVIDIA H100 datasheet, SXM"),
        _gpu("H200", 141, 4.8, 989, 67, 1979, 450, 50, 700, 9.0, "NVIDIA H200 datasheet, SXM"),
        _gpu(
            "B200",
            180,
            8.0,
            2250,
            75,
            4500,
            900,
            50,
            1000,
            10.0,
            "NVIDIA DGX B200 datasheet, an eighth of the machine; fp4 is half of its sparse 18",
            fp4=9000,
        ),
        _gpu(
            "MI300X",
            192,
            5.3,
            1307.4,
            163.4,
            2614.9,
            448,
            50,
            750,
            0,
            "AMD Instinct MI300X data sheet; 7 links of 64 GB/s",
        ),
    )
}
"""name → GPU."""


@lru_cache(maxsize=256)
def gpu(name: str) -> Gpu | None:
    """The GPU that a spec names; None if unknown.

    The maker, the form factor and capital letters do not matter. If GPUs differ only in memory, a
    name without the memory means the last in the list above.
    """
    model, memory = _parts(name)
    for known in reversed(GPUS.values()):
        own, size = _parts(known.name)
        if model == own and (not memory or not size or memory == size):
            return known
    return None


def _parts(name: str) -> tuple[str, str]:
    """Model and memory: ("h100", "80"); "" for what the name lacks."""
    memory = re.search(r"(?<![\w])(\d+)\s*gi?b\b", name.lower())
    words = re.sub(r"(?<![\w])\d+\s*gi?b\b", " ", name.lower())
    left_out = r"\b(nvidia|amd|instinct|tensor|core|gpu|sxm\d?|oam|hbm\d?e?)\b"
    return re.sub(r"[^a-z0-9]", "", re.sub(left_out, " ", words)), memory[1] if memory else ""
