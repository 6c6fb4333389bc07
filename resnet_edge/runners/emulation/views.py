"""What a program on an emulated processor sees as /proc/cpuinfo.

QEMU's user mode lets the guest read the host's file, of another architecture, which crashes the libraries
that XNNPACK and ONNX Runtime ask for the processor's features. And the file must agree with the processor:
with the features of a larger one, they would choose instructions that it does not have. So it is written from
what the emulated processor itself says.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from resnet_edge.runners import agent
from resnet_edge.runners.commands import run

if TYPE_CHECKING:
    from resnet_edge.runners.emulation.machine import Emulator

# Linux lets programs read the main ID register, MIDR_EL1, by an instruction: `mrs x0, midr_el1; ret`.
_ASK = """
import ctypes, json, mmap, runpy, sys
agent = runpy.run_path(sys.argv[1])
page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("000038d5 c0035fd6"))
function = ctypes.CFUNCTYPE(ctypes.c_ulong)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
features = [agent["auxiliary_value"](agent[key]) for key in ("AT_HWCAP", "AT_HWCAP2")]
print(json.dumps([function(), agent["hardware_features"](*features)]))
"""


def make_view(emulator: Emulator, cpu: str) -> None:
    """Make, or make anew, the view of one processor.

    Raises:
        CommandFailedError: The emulator does not run, or does not know the processor.
    """
    view, root = emulator.view(cpu), emulator.folder / "root"
    (view / "proc").mkdir(parents=True, exist_ok=True)
    for entry in root.iterdir():
        link = view / entry.name
        link.unlink(missing_ok=True)
        link.symlink_to(Path(os.path.relpath(entry, view)))
    argv, env = emulator.command(cpu)
    answer = run(
        [*argv, "-c", _ASK, agent.__file__], env=env, next_step="resnet-edge runners setup qemu --again"
    )
    midr, features = json.loads(answer)
    (view / "proc/cpuinfo").write_text(cpuinfo(midr, features, os.cpu_count() or 1), "ascii")


def cpuinfo(midr: int, features: list[str], cores: int) -> str:
    """The file as 64-bit ARM Linux writes it.

    Args:
        midr: The main ID register (Arm Architecture Reference Manual, MIDR_EL1): implementer 31:24, variant
            23:20, part 15:4, revision 3:0.
        features: By the kernel's names.
        cores: How many.
    """
    core = "".join(
        f"{name}\t: {value}\n"
        for name, value in {
            "BogoMIPS": "100.00",
            "Features": " ".join(features),
            "CPU implementer": f"{midr >> 24 & 0xFF:#04x}",
            "CPU architecture": "8",
            "CPU variant": f"{midr >> 20 & 0xF:#x}",
            "CPU part": f"{midr >> 4 & 0xFFF:#05x}",
            "CPU revision": f"{midr & 0xF}",
        }.items()
    )
    return "".join(f"processor\t: {number}\n{core}\n" for number in range(cores))
