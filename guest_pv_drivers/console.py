"""Console of this kernel: lines out, bytes in, each by one hypercall."""
from typing import Annotated, Final

from guest_pv_drivers import hypercall
from hypervisor.abi import Hypercall
from hypervisor.arch_x86 import intrinsics
from hypervisor.lang import address, char_at, struct, u8, u32, u64

LINE_BYTES: Final = 192
NEWLINE: Final = 10


@struct(align=64)
class Line:
    """The line on its way out."""

    text: Annotated[list[u8], LINE_BYTES]


line: Final = Line()


def fill(text: str) -> u32:
    """Copy text into the line; its length."""
    n: u32 = 0
    while n < LINE_BYTES - 1 and char_at(text, n) != 0:
        line.text[n] = char_at(text, n)
        n += 1
    return n


def write(gpa: u64, count: u64) -> None:
    """Send bytes as they are; what the hypervisor leaves of them is sent again. Its errors are ignored: where would they be shown."""
    done: u64 = 0
    while done < count:
        result = hypercall.call2(Hypercall.CONSOLE_WRITE, gpa + done, count - done)
        if result <= 0:
            return
        done += u64(result)


def say(text: str) -> None:
    """Print one line. Threads may call it at any time."""
    flags = intrinsics.interrupts_off()
    n = fill(text)
    line.text[n] = NEWLINE
    write(address(line), n + 1)
    intrinsics.interrupts_restore(flags)


def read(buffer: u64, size: u64) -> u64:
    """Bytes typed at the operator console for this VM, 0 when there are none; EVENT_CONSOLE tells of new ones."""
    n = hypercall.call2(Hypercall.CONSOLE_READ, buffer, size)
    return u64(n) if n > 0 else 0


def crash(text: str) -> None:
    """Stop this VM with a dump, giving text as the reason; does not return."""
    intrinsics.interrupts_off()
    hypercall.crash(address(line), fill(text))
    while True:
        intrinsics.pause()
