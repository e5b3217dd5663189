"""Who uses a host disk next, and what becomes of what has ended: one bounded turn of the run loop (WORK_DISK).

Start-time fair queueing with depth (Jin, Chase, Kaur 2004, SFQ(D)): each VM with requests for a host disk is a flow with a
tag; the flow with the least starts next, and its tag grows by cost / weight of the VM. A flow that had nothing to do, or
was held back by a limit, goes on at the disk's virtual time: it can neither save up nor lose. While several flows
compete, at most CONTENDED_DEPTH transfers are in flight, so that the disk's own queue does not decide.
"""
from __future__ import annotations

from typing import Final

from hypervisor import clock, timers
from hypervisor.arch_x86.intrinsics import bsf
from hypervisor.block import completion, cutter, host_disk, limits, overlay, overlay_store, polling, virtual_disk
from hypervisor.block.host_disk import release_transfer, take_transfer, transfer_of
from hypervisor.block.model import (SECTOR_SHIFT, TRANSFERS_A_DISK, Completion, Direction, DiskState, HostDisk, Outcome, Request,
                                    StoreState, Transfer, VirtualDisk, disks)
from hypervisor.block.overlay_store import Step
from hypervisor.console import say
from hypervisor.drivers import driver
from hypervisor.lang import struct, u32, u64
from hypervisor.model import WORK_DISK, Cpu, Vcpu
from hypervisor.sched import account
from hypervisor.status import Status
from hypervisor.timers import NEVER

ENDS_A_TURN: Final = 8  # each below 2.5 k instructions
STARTS_A_TURN: Final = 4  # each below 5 k
COPIED_A_TURN: Final = 128  # sectors after which a driver that copies has done enough; 64 take 4 k
SPENT_ENOUGH: Final = 4  # ends, and starts counted twice, after which no further host disk is served
CONTENDED_DEPTH: Final = 8
TAG_UNITS: Final = 256  # of a tag for a byte at weight 1
REQUEST_COST: Final = 4096  # what a request costs beside its bytes
TIMEOUT_NS: Final[u64] = 8_000_000_000
RESET_NS: Final[u64] = 5_000_000_000
WATCH_NS: Final[u64] = 500_000_000  # how often transfers in flight are looked at
RESET_STEP_NS: Final[u64] = 1_000_000
TRIES: Final = 2


@struct
class Choice:
    """What pick has found."""

    disk: VirtualDisk | None
    ready_at: u64  # None: host TSC at which a limit lets somebody start; NEVER: nobody waits for that


@struct
class Turn:
    """The one under way."""

    cpu: Cpu | None
    since: u64  # host TSC from which on nobody has been charged for it
    served: Vcpu | None  # who was last


choice: Final = Choice()
under_way: Final = Turn()


def turn(cpu: Cpu) -> u64:
    """Take in what has ended and start what may start, a bounded part; the rest is owed. Each transfer is paid for by the VM that it
    serves, the rest by the last of them; answers the host TSC up to which all is paid."""
    now: u64 = clock.now()
    under_way.cpu = cpu
    under_way.since = now
    under_way.served = None
    ended: u32 = 0
    spent: u64 = 0
    look_at: u64 = NEVER
    first: u32 = disks.next_host
    for i in range(disks.host_count):
        number = (first + i) % disks.host_count
        if spent >= SPENT_ENOUGH:  # the others next time, first
            disks.next_host = u32(number)
            look_at = now
            break
        host = disks.host[number]
        watch(host, now)
        count = take_in(host)
        polling.note(host, count, now)
        before: u64 = host.started
        ended += count
        look_at = min(look_at, now if count == ENDS_A_TURN else start_some(host, now))
        look_at = min(look_at, polling.choose(host, now))
        if count != 0 and host.shares:
            look_at = now  # for the other disk
        spent += count + 2 * (host.started - before)
    if ended != 0:
        offer_room()
    if look_at <= now:
        cpu.work |= WORK_DISK
    elif look_at != NEVER and (disks.timer.heap_index == 0 or look_at < disks.timer.deadline):
        timers.arm(cpu, disks.timer, look_at)
    return account.end(cpu, under_way.since, under_way.served)


def served(disk: VirtualDisk) -> None:
    """What was done since the last call was done for the VM of this disk."""
    cpu = under_way.cpu
    vm = disk.vm
    if cpu is not None and vm is not None:
        under_way.served = vm.vcpus[0]
        under_way.since = account.end(cpu, under_way.since, under_way.served)


def take_in(host: HostDisk) -> u32:
    """Up to ENDS_A_TURN transfers that have ended; how many."""
    count: u32 = 0
    while count < ENDS_A_TURN:
        transfer = lost(host) if host.state == DiskState.FAILED else driver.reap(host)
        if transfer is None:
            break
        end_transfer(host, transfer)
        count += 1
    return count


def lost(host: HostDisk) -> Transfer | None:
    """A transfer that a failed disk still had, ended by error."""
    if host.busy == 0:
        return None
    transfer = transfer_of(host, bsf(host.busy))
    transfer.outcome = Outcome.IO_ERROR
    return transfer


def end_transfer(host: HostDisk, transfer: Transfer) -> None:
    """A transfer has ended with transfer.outcome: its requests go on, or are done."""
    release_transfer(host, transfer)
    failed = transfer.outcome != Outcome.OK
    if failed:
        host.errors += 1
    for i in range(transfer.request_count):
        request = transfer.requests[i]
        assert request is not None
        disk = request.disk
        request.parts -= 1
        disk = request.disk
        if disk is not None and disk.overlay.store.map_sectors != 0:
            overlay_store.ended(disk, transfer)
        if failed and transfer.request_count > 1 and request.completion != Completion.NOBODY:
            cutter.start_again(request)
            continue
        if failed:
            request.outcome = transfer.outcome
            cutter.give_up_rest(request)
        if request.parts == 0 and request.all_started:
            complete(request)
        if disk is not None:
            served(disk)


def complete(request: Request) -> None:
    """Nothing of the request is in flight any more: tell who submitted it."""
    disk = request.disk
    assert disk is not None and request.submitted and disk.outstanding != 0
    disk.outstanding -= 1
    request.submitted = False
    virtual_disk.unpin(request)
    counts = disk.counts
    counts.requests[request.direction] += 1
    counts.ticks += clock.now() - request.submitted_at
    if request.outcome == Outcome.OK:
        counts.sectors[request.direction] += request.sectors
    else:
        counts.errors += 1
    completion.done(request)


def offer_room() -> None:
    """Those who could not take or submit a request may try again."""
    for disk in disks.virtual:
        if disk is not None and disk.starved and disk.free is not None:
            completion.room(disk)


def start_some(host: HostDisk, now: u64) -> u64:
    """Start up to STARTS_A_TURN transfers. Host TSC at which to look again; up to `now`: at once."""
    if host.state == DiskState.RESETTING:
        return now + clock.ticks_of(RESET_STEP_NS)
    if host.again != 0 and not driver.is_free(host):
        return host.watch_at
    started = start_again_some(host, now)
    copied: u64 = 0
    look_at: u64 = NEVER
    while started < STARTS_A_TURN and copied < COPIED_A_TURN:
        pick(host, now)
        look_at = choice.ready_at
        disk = choice.disk
        if disk is None:
            break
        copied += start_next(host, disk, now)
        served(disk)
        started += 1
    if started != 0:
        driver.notify(host)
    if started == STARTS_A_TURN or copied >= COPIED_A_TURN:
        return now
    return look_at if host.in_flight == 0 else min(look_at, host.watch_at)


def pick(host: HostDisk, now: u64) -> None:
    """Choose who starts next on this host disk."""
    choice.disk = None
    choice.ready_at = NEVER
    least: u64 = 0
    served: u64 = 0
    competing: u32 = 0
    for disk in disks.virtual:
        if disk is None or disk.outstanding == 0 or disk.host != host:
            continue
        competing += 1
        if disk.queue is None or overlay_store.is_held_up(disk):
            continue
        ready_at = limits.ready_at(disk)
        if ready_at > now:
            choice.ready_at = min(choice.ready_at, ready_at)
            continue
        flow = disk.flow
        assert flow is not None
        tag: u64 = max(flow.tag, host.virtual_time)
        if choice.disk is None or tag < least or tag == least and disk.served < served:
            choice.disk = disk
            least = tag
            served = disk.served
    depth: u32 = host.depth if competing < 2 else min(host.depth, CONTENDED_DEPTH)
    if host.in_flight >= depth or not driver.is_free(host):
        choice.disk = None


def start_next(host: HostDisk, disk: VirtualDisk, now: u64) -> u64:
    """Start the next of what is queued for a disk, and charge its flow; how many sectors were copied for that."""
    head = disk.queue
    assert head is not None
    host.started += 1
    disk.served = host.started
    if host.state == DiskState.FAILED:
        end_here(disk, head, Outcome.IO_ERROR)
        return 0
    if disk.overlay.store.map_sectors != 0:
        return start_stored(host, disk, head, now)
    if head.direction == Direction.FLUSH and (not host.can_flush or disk.overlay.root != 0):  # what was written is where it stays
        end_here(disk, head, Outcome.OK)
        return 0
    most: u64 = head.sectors - head.started
    if disk.overlay.root != 0:
        before: u64 = head.started
        status = overlay.serve(disk, head)
        if status != Status.NOT_FOUND:
            return end_part(host, disk, head, before, status, now)
        most = overlay.unwritten(disk, head.sector + head.started, most)
    transfer = take_transfer(host)
    cutter.fill(host, disk, transfer, most)
    charge(host, disk, transfer.sectors << SECTOR_SHIFT if transfer.segment_count != 0 else 0, transfer.request_count, now)
    start_transfer(host, transfer, now)
    return transfer.sectors if host.immediate else 0


def start_stored(host: HostDisk, disk: VirtualDisk, head: Request, now: u64) -> u64:
    """The next of a disk whose overlay lies on the host disk: a step of the overlay's own, or a part of the request. As start_next."""
    store = disk.overlay.store
    own = store.state != StoreState.OPEN or head.direction == Direction.FLUSH
    if store.state == StoreState.FAILED or not own and overlay_store.find(disk, head) != Status.OK:
        end_here(disk, head, Outcome.IO_ERROR)
        return 0
    transfer = take_transfer(host)
    if own:
        step = overlay_store.fill(disk, head, transfer)
        if step != Step.TRANSFER:
            release_transfer(host, transfer)
            if step == Step.NOTHING:
                end_here(disk, head, Outcome.OK)
            return COPIED_A_TURN
        cutter.serve(transfer, head)
        store.stepping = True
    else:
        cutter.fill(host, disk, transfer, overlay_store.found.most)
        transfer.sector = overlay_store.found.sector
        if transfer.direction == Direction.WRITE:
            store.writing += 1
    charge(host, disk, transfer.sectors << SECTOR_SHIFT, transfer.request_count, now)
    start_transfer(host, transfer, now)
    return 0


def end_part(host: HostDisk, disk: VirtualDisk, head: Request, before: u64, status: Status, now: u64) -> u64:
    """The overlay has served a part of a request; how many sectors."""
    served: u64 = head.started - before
    charge(host, disk, served << SECTOR_SHIFT, 1 if before == 0 else 0, now)
    if status == Status.NO_MEMORY:
        end_here(disk, head, Outcome.IO_ERROR)
    elif head.started == head.sectors:
        end_here(disk, head, head.outcome)
    return served


def start_transfer(host: HostDisk, transfer: Transfer, now: u64) -> None:
    """Hand it to the driver."""
    transfer.deadline = now + clock.ticks_of(TIMEOUT_NS)
    if host.in_flight == 1:
        host.watch_at = now + clock.ticks_of(WATCH_NS)
    driver.start(host, transfer)


def charge(host: HostDisk, disk: VirtualDisk, size: u64, requests: u32, now: u64) -> None:
    """The disk's flow has been served."""
    flow = disk.flow
    vm = disk.vm
    assert flow is not None
    cost: u64 = size + requests * REQUEST_COST
    weight: u64 = 1 if vm is None else vm.weight
    host.virtual_time = max(flow.tag, host.virtual_time)
    flow.tag = host.virtual_time + cost * TAG_UNITS // max(weight, 1)
    limits.take(disk, size, requests, now)


def end_here(disk: VirtualDisk, head: Request, outcome: Outcome) -> None:
    """The queue's first request ends, as far as it has not been started, without the host disk."""
    cutter.unlink_head(disk)
    head.all_started = True
    head.outcome = outcome
    if head.parts == 0:
        complete(head)


def watch(host: HostDisk, now: u64) -> None:
    """Look for transfers that should have ended long ago, and bring the disk back if there is one."""
    if host.state == DiskState.RESETTING:
        reset(host, False, now)
    elif host.state == DiskState.OK and host.busy != 0 and now >= host.watch_at:
        host.watch_at = now + clock.ticks_of(WATCH_NS)
        for slot in range(TRANSFERS_A_DISK):
            if host.busy >> (slot & 63) & 1 != 0 and transfer_of(host, slot).deadline <= now:
                host.timeouts += 1
                host.reset_until = now + clock.ticks_of(RESET_NS)
                reset(host, True, now)
                return


def reset(host: HostDisk, begin: bool, now: u64) -> None:
    """Begin or go on."""
    if begin:
        say(f"disk {host_disk.name(host)}: a transfer did not end in {TIMEOUT_NS // 1_000_000_000} s; it is reset")
        host.resets += 1
        host.state = DiskState.RESETTING
    status = driver.reset(host, begin)
    if status == Status.OK:
        host.state = DiskState.OK
        host.again = host.busy
    elif status != Status.WAIT or now >= host.reset_until:
        driver.cut_off(host)
        host.state = DiskState.FAILED
        say(f"disk {host_disk.name(host)}: it does not come back; every request fails from now on")


def start_again_some(host: HostDisk, now: u64) -> u32:
    """After a reset: the transfers that were in flight are started again, once; those that had their chance fail."""
    count: u32 = 0
    while host.again != 0 and count < STARTS_A_TURN:
        slot = bsf(host.again)
        host.again = host.again & ~(1 << (slot & 63))
        transfer = transfer_of(host, slot)
        transfer.tries += 1
        if transfer.tries >= TRIES:
            transfer.outcome = Outcome.IO_ERROR
            end_transfer(host, transfer)
        else:
            start_transfer(host, transfer, now)
        count += 1
    return count
