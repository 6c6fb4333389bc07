"""What this machine's processor computes otherwise than others."""

from __future__ import annotations

from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")

_EXACT = frozenset({"avx_vnni", "avx512_vnni", "avx_vnni_int8"})
"""Features with which bytes are multiplied and added up in 32 bits."""


def saturating_uint8_kernels(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether ONNX Runtime may cut off sums of uint8 x int8 products on this machine.

    On x86 without VNNI its kernels add two neighbouring products in 16 bits (``vpmaddubsw``). Where it is not
    known (no Linux), the answer is no.

    Args:
        cpuinfo: The kernel's description of the processor.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    # On ARM the line is called "Features", and products are added up in 32 bits.
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return "avx2" in flags and _EXACT.isdisjoint(flags)
