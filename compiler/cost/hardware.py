"""GPUs as their makers describe them: peak rates without sparsity, a GPU's share of links."""

from ...spec.record import Record

GB = 10**9
TERA = 10**12


class Gpu(Record):
    """One GPU. Bandwidths are bytes a second in one direction.

    Attributes:
        bf16: peak dense FLOP/s of matrix products in bfloat16.
        fp8: the same in 8-bit floats; None where the GPU has none.
        fp32: the same of fp32 matrix products, as PyTorch runs them by default (no TF32).
        memory: bytes.
        memory_bandwidth: of the GPU's own memory.
        link: to the other GPUs of its node.
        network: to other nodes, one network card a GPU.
        power: watts, the maker's limit or the operator's.
        family: key of the calibration's `sustained` constants.
        source: where the figures are published.
    """

    name: str
    bf16: float
    fp8: float | None
    fp32: float
    memory: int
    memory_bandwidth: float
    link: float
    network: float
    power: int
    family: str = ""
    source: str


_NVIDIA = "https://www.nvidia.com/en-us/data-center/"
_CARD_200 = 25 * GB  # 200 Gb/s InfiniBand HDR, one a GPU, as in DGX A100
_CARD_400 = 50 * GB  # 400 Gb/s, one a GPU, as in DGX H100 and in arXiv:2407.21783, §3.3.1

GPUS: tuple[Gpu, ...] = (
    Gpu(name="A100 40GB", bf16=312 * TERA, fp8=None, fp32=19.5 * TERA, memory=40 * GB,
        memory_bandwidth=1555 * GB, link=300 * GB, network=_CARD_200, power=400,
        source=f"{_NVIDIA}a100/ (SXM)"),
    Gpu(name="A100 80GB", bf16=312 * TERA, fp8=None, fp32=19.5 * TERA, memory=80 * GB,
        memory_bandwidth=2039 * GB, link=300 * GB, network=_CARD_200, power=400,
        source=f"{_NVIDIA}a100/ (SXM)"),
    Gpu(name="H100 80GB", bf16=989 * TERA, fp8=1979 * TERA, fp32=67 * TERA, memory=80 * GB,
        memory_bandwidth=3350 * GB, link=450 * GB, network=_CARD_400, power=700,
        source=f"{_NVIDIA}h100/ (SXM)"),
    Gpu(name="H100 96GB", bf16=989 * TERA, fp8=1979 * TERA, fp32=67 * TERA, memory=102 * GB,
        memory_bandwidth=2400 * GB, link=450 * GB, network=_CARD_400, power=500,
        family="500 W",
        source="pytorch/torchtitan, benchmarks/llama3_h100_202412_torchtitan.md: HBM2e, 500 W"),
    Gpu(name="H200 141GB", bf16=989 * TERA, fp8=1979 * TERA, fp32=67 * TERA, memory=141 * GB,
        memory_bandwidth=4800 * GB, link=450 * GB, network=_CARD_400, power=700,
        source=f"{_NVIDIA}h200/ (SXM)"),
    Gpu(name="B200 180GB", bf16=2250 * TERA, fp8=4500 * TERA, fp32=75 * TERA, memory=180 * GB,
        memory_bandwidth=8000 * GB, link=900 * GB, network=_CARD_400, power=1000,
        source="https://resources.nvidia.com/en-us-dgx-systems/dgx-b200-datasheet"),
    Gpu(name="MI300X 192GB", bf16=1307.4 * TERA, fp8=2614.9 * TERA, fp32=163.4 * TERA,
        memory=192 * GB, memory_bandwidth=5300 * GB, link=448 * GB, network=_CARD_400, power=750,
        source="https://www.amd.com/en/products/accelerators/instinct/mi300/mi300x.html"),
)  # fmt: skip

_WORDS = ("nvidia", "amd", "instinct", "sxm", "sxm4", "sxm5", "gpu")


def gpu(name: str) -> Gpu | None:
    """The GPU of a name such as "H100 80GB", "NVIDIA H100 SXM 80 GB" or "h200"; None: unknown.

    Without a size of its memory a name means the only GPU so called, or the usual one: the A100
    and the H100 have 80 GB.
    """
    words = name.lower().replace("-", " ").replace("_", " ").replace(" gb", "gb").split()
    words = [word for word in words if word not in _WORDS]
    if not words:
        return None
    kinds = [each for each in GPUS if each.name.lower().split()[0] == words[0]]
    if len(words) == 1:
        usual = [each for each in kinds if each.name.endswith(" 80GB")]
        return (usual or kinds or [None])[0]
    wanted = " ".join(words)
    return next((each for each in kinds if each.name.lower() == wanted), None)


def names() -> list[str]:
    return [each.name for each in GPUS]
