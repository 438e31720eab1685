"""What accelerators can do, per JAX device: the denominators of MFU and of rooflines."""

import dataclasses

import jax

_CLOUD_TPU = "https://cloud.google.com/tpu/docs/"
_NVIDIA = "https://www.nvidia.com/en-us/data-center/"


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """Peak dense figures of one JAX device, which on TPU v2, v3 and 7x is half a chip.

    `kind` is `jax.Device.device_kind`, word for word: an L40 is no L4, an H200 NVL no H200.
    """

    kind: str
    peak_flops: float  # bfloat16 FLOP/s, float16 where there is no bfloat16
    memory_bytes: float
    memory_bandwidth: float  # bytes/s
    source: str
    network: "Network | None" = None  # None: not looked up
    usable_bytes: float | None = None  # what a program may take of the memory


@dataclasses.dataclass(frozen=True)
class Network:
    """What one JAX device exchanges with others, in bytes/s."""

    torus_axes: int  # of the slice's interconnect (ICI), two links an axis
    ici: float  # over all links, both directions added up, as vendors state it
    dcn: float | None  # to other slices, one direction: a host's network cards over its devices
    source: str

    @property
    def link(self) -> float:
        """One direction of one link of the interconnect."""
        return self.ici / (4 * self.torus_axes)


_GIB = 2.0**30

# ICI from the tables "Bidirectional inter-chip interconnect (ICI) bandwidth per chip", DCN from
# "Data center network (DCN) bandwidth per chip" (v5e: of a pod of 256 chips, 6.4 Tbit/s), read
# 2026-11-25. TPU v4: six links of 50 GB/s each way (Jouppi et al. 2023, arXiv 2304.01433, table 4);
# its DCN is in neither.
_V4 = Network(3, 600e9, None, "arXiv 2304.01433")
_V5E = Network(2, 400e9, 25e9 / 8, _CLOUD_TPU + "v5e")
_V5P = Network(3, 1200e9, 50e9 / 8, _CLOUD_TPU + "tpu7x")
_V6E = Network(2, 800e9, 100e9 / 8, _CLOUD_TPU + "v6e")
_V7X = Network(3, 1200e9 / 2, 100e9 / 8 / 2, _CLOUD_TPU + "tpu7x")

# Usable memory is what the compilers of libtpu 0.0.42 name when they refuse a larger program.
ACCELERATORS: tuple[Accelerator, ...] = (
    Accelerator("TPU v2", 45e12 / 2, 8 * _GIB, 700e9 / 2, _CLOUD_TPU + "v2"),
    Accelerator("TPU v3", 123e12 / 2, 16 * _GIB, 900e9 / 2, _CLOUD_TPU + "v3"),
    Accelerator("TPU v4", 275e12, 32 * _GIB, 1228e9, _CLOUD_TPU + "v4", _V4, 30.75 * _GIB),
    Accelerator("TPU v5 lite", 197e12, 16 * _GIB, 819e9, _CLOUD_TPU + "v5e", _V5E, 15.75 * _GIB),
    Accelerator("TPU v5", 459e12, 95 * _GIB, 2765e9, _CLOUD_TPU + "v5p", _V5P, 95.74 * _GIB),
    Accelerator("TPU v6 lite", 918e12, 32 * _GIB, 1640e9, _CLOUD_TPU + "v6e", _V6E, 31.25 * _GIB),
    Accelerator(
        "TPU7x", 2307e12 / 2, 96 * _GIB, 7380e9 / 2, _CLOUD_TPU + "tpu7x", _V7X, 94.75 * _GIB
    ),
    Accelerator("NVIDIA A100-SXM4-40GB", 312e12, 40e9, 1555e9, _NVIDIA + "a100"),
    Accelerator("NVIDIA A100-SXM4-80GB", 312e12, 80e9, 2039e9, _NVIDIA + "a100"),
    Accelerator("NVIDIA A100 80GB PCIe", 312e12, 80e9, 1935e9, _NVIDIA + "a100"),
    Accelerator("NVIDIA H100 80GB HBM3", 989e12, 80e9, 3350e9, _NVIDIA + "h100"),
    Accelerator("NVIDIA H100 PCIe", 756e12, 80e9, 2000e9, _NVIDIA + "h100"),
    Accelerator("NVIDIA H200", 989e12, 141e9, 4800e9, _NVIDIA + "h200"),
    Accelerator("NVIDIA B200", 2250e12, 180e9, 8000e9, _NVIDIA + "dgx-b200"),
    Accelerator("NVIDIA L4", 121e12, 24e9, 300e9, _NVIDIA + "l4"),
    Accelerator("NVIDIA L40S", 362e12, 48e9, 864e9, _NVIDIA + "l40s"),
    Accelerator("Tesla T4", 65e12, 16e9, 320e9, _NVIDIA + "tesla-t4"),  # float16
    Accelerator("Tesla V100-SXM2-16GB", 125e12, 16e9, 900e9, _NVIDIA + "v100"),  # float16
    Accelerator("Tesla V100-SXM2-32GB", 125e12, 32e9, 900e9, _NVIDIA + "v100"),
    Accelerator("Tesla V100-PCIE-16GB", 112e12, 16e9, 900e9, _NVIDIA + "v100"),
    Accelerator("Tesla V100-PCIE-32GB", 112e12, 32e9, 900e9, _NVIDIA + "v100"),
)
_ALSO_CALLED = {"TPU v5e": "TPU v5 lite", "TPU v5p": "TPU v5", "TPU v6e": "TPU v6 lite"}


def find_accelerator(device: jax.Device | None = None) -> Accelerator | None:
    """Return the figures of a device (the first one by default), None for a CPU or unknown kind."""
    kind = (device or jax.devices()[0]).device_kind
    kind = _ALSO_CALLED.get(kind, kind)
    return next((known for known in ACCELERATORS if known.kind == kind), None)


def model_flops_utilization(
    flops_per_token: float, tokens_per_second: float, num_devices: int, device: jax.Device
) -> float | None:
    """Return MFU (Chowdhery et al. 2022): FLOPs that the model needs over FLOPs of the devices.

    None where the device is not in the table.
    """
    accelerator = find_accelerator(device)
    if accelerator is None:
        return None
    return flops_per_token * tokens_per_second / (num_devices * accelerator.peak_flops)
