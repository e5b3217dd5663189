"""What the operator can ask about disks: `disks`; `debug disk NAME` in debug images."""
from __future__ import annotations

from typing import Annotated, Final

from hypervisor import clock, text, vm
from hypervisor import operator_vm_commands as vm_commands
from hypervisor.block import disk_test, host_disk, virtual_disk
from hypervisor.block.model import Direction, HostDisk, VirtualDisk, disks
from hypervisor.console import say
from hypervisor.lang import address, char_at, text_at, u32, u64

STATE_NAMES: Final[Annotated[list[str], 3]] = ["ok", "reset", "failed"]


def disks_(arguments: u64) -> None:
    """disks"""
    if disks.host_count == 0:
        say("this machine has no disk that Krait can drive")
        return
    say("  disk      serial               state       MiB in flight transfers errors timeouts")
    for i in range(disks.host_count):
        show_host(disks.host[i])
    shown = False
    for disk in disks.virtual:
        if disk is not None:
            if not shown:
                say("  vm           disk         on        from MiB    MiB        mode     reads    writes     KiB in    KiB out errors  mean us")
            shown = True
            show_virtual(disk)


def show_host(host: HostDisk) -> None:
    """One line."""
    say(f"  {host_disk.name(host):<9} {text_at(address(host.serial)):<20} {STATE_NAMES[host.state]:<6} {host.sectors >> 11:8} "
        f"{host.in_flight:9} {host.started:9} {host.errors:6} {host.timeouts:8}")


def show_virtual(disk: VirtualDisk) -> None:
    """One line."""
    owner = disk.vm
    host = disk.host
    assert host is not None
    name = "-" if owner is None else vm.name(owner)
    mode = "read-only" if disk.read_only else ("overlay" if disk.overlay.most_frames != 0 else "write")
    counts = disk.counts
    ended: u64 = 0
    for i in range(len(counts.requests)):
        ended += counts.requests[i]
    mean: u64 = clock.ns_of(counts.ticks // max(ended, 1)) // 1000
    say(f"  {name:<12} {virtual_disk.name(disk):<12} {host_disk.name(host):<9} {disk.first >> 11:8} {disk.sectors >> 11:6} "
        f"{mode:>11} {counts.requests[Direction.READ]:9} {counts.requests[Direction.WRITE]:9} "
        f"{counts.sectors[Direction.READ] >> 1:10} {counts.sectors[Direction.WRITE] >> 1:10} {counts.errors:6} {mean:8}")


def undo(arguments: u64) -> None:
    """undo NAME"""
    machine = vm_commands.named(arguments)
    if machine is None:
        return
    count: u32 = 0
    for disk in disks.virtual:
        if disk is not None and disk.vm == machine and disk.overlay.root != 0:
            disk.overlay.forget = True
            count += 1
            say(f"{virtual_disk.name(disk)}: {disk.overlay.frames << 2} KiB are forgotten when {vm.name(machine)} starts again; `reboot` does that now")
    if count == 0:
        say(f"{vm.name(machine)} has no disk with an overlay")


def debug(arguments: u64) -> None:
    """debug disk NAME: write over the beginning of a disk that no VM has, and read it back."""
    text.cut_word(arguments)
    host = host_disk.find(text_at(arguments))
    if host is None:
        say(f"no such disk: {text_at(arguments)}; `disks` lists them")
        return
    problem = disk_test.start(host)
    if char_at(problem, 0) != 0:
        say(f"disk {host_disk.name(host)} is not tested: {problem}")
