"""An emulated ARM machine in the user's cache: QEMU's user mode, and an aarch64 Python with the runtimes.

No root, no container, no kernel support: the emulator is one program that runs another.
"""
