"""Every line of level 4 (warning) or below that Debian's kernel may print as a guest, with the reason why it stays.

Each is a regular expression for the whole text behind the time. test_linux.py fails on any other line.
"""

ALLOWED: tuple[tuple[str, str], ...] = (
    (r"acpi PNP0A03:00: fail to add MMCONFIG information, can't access extended PCI configuration space under this bridge\.",
     "true: PCI configuration goes by ports CF8 and CFC, there is no memory-mapped window"),
    (r"Speculative Return Stack Overflow: IBPB-extending microcode not applied!",
     "true of the CPU that QEMU emulates: the same line comes without Krait"),
    (r"Speculative Return Stack Overflow: WARNING: See https://\S+ for mitigation options\.", "belongs to the line before it"),
    (r"hpet: Lost \d+ RTC interrupts",
     "the driver emulates the RTC's ticks by HPET interrupts and counts those that came late: a vCPU that shares its CPU waits longer than a tick"),
    (r"hrtimer: interrupt took \d+ ns",
     "the longest handling of timers so far, told when the next one was due before its end: the emulator did not have its core meanwhile, or another vCPU had it"),
    (r"PMU not available due to virtualization, using software events only\.", "there are no performance counters in a guest"),
)  # fmt: skip
