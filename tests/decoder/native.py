"""Runs one instruction on this machine's own CPU, as the model of what emulation must do."""
from __future__ import annotations

import ctypes
import mmap

NAMES = ("rax", "rcx", "rdx", "rbx", "r8", "rsi", "rdi", "rflags")
# push rbx, rbp, rdi; flags and registers from [rdi]
BEFORE = bytes.fromhex("53 55 57 ff7738 9d 488b07 488b4f08 488b5710 488b5f18 4c8b4720 488b7728 488b7f30")
# xchg rdi, [rsp]; registers and flags to [rdi]; cld; pop rbp, rbx; ret
AFTER = bytes.fromhex("48873c24 488907 48894f08 48895710 48895f18 4c894720 48897728 8f4730 9c 8f4738 fc 5d 5b c3")


class Native:
    """A page to run code in."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._held = ctypes.c_char.from_buffer(self._page)
        self._call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(ctypes.addressof(self._held))

    def run(self, code: bytes, registers: dict[str, int]) -> dict[str, int]:
        """Execute `code`; all of NAMES before, and after. It must not touch RSP, RBP or memory that is not ours."""
        self._page.seek(0)
        self._page.write(BEFORE + code + AFTER)
        values = (ctypes.c_uint64 * len(NAMES))(*(registers[name] for name in NAMES))
        self._call(ctypes.addressof(values))
        return dict(zip(NAMES, values))
