"""The channel's two ends in the hypervisor: frames from the host are obeyed, what is owed to it is sent. docs/channel.md.

poll is called by the run loop (WORK_CHANNEL): it takes some bytes, obeys one frame at most, and sends one frame at most, while
little of the UART's ring is left to be sent; the transmitter's interrupt calls for the next. So the line's speed sets the pace.
What comes is checked as a guest's: bytes that are no frame are skipped, frames that make no sense are answered REFUSED.
"""
from typing import Final

from hypervisor import console, guest_console, log, operator_commands, trace_rings, vm
from hypervisor.abi_channel import (CHANNEL_VERSION, PAYLOAD_MOST, WANT_CONSOLES, WANT_EVENTS, WANT_LOG, Credit, End, EventRecord,
                                    FrameHeader, FrameKind, Hello, HostRecord, LogRecord, Query, QueryKind, Refusal, Refused, VmRecord)
from hypervisor.abi_trace import RECORDS_A_FRAME, TraceHeader, TracePart, TraceRecord
from hypervisor.arch_x86 import serial
from hypervisor.arch_x86.intrinsics import load_u8
from hypervisor.arch_x86.serial import com2
from hypervisor.channel import consoles, events, frames, records
from hypervisor.channel.state import COMMAND_BYTES, link
from hypervisor.cpu import owe
from hypervisor.lang import address, at, clear, sizeof, u8, u32, u64, wrap_u32
from hypervisor.model import CONSOLE_OUTPUT_BYTES, MAX_VMS, WORK_CHANNEL, Cpu, Vm
from hypervisor.sched.trace import trace
from hypervisor.trace_rings import sending
from hypervisor.virtio import service

BYTES_A_POLL: Final = 600  # received ones; a whole frame has fewer
CONSOLE_CHUNK: Final = 256
TEXT_CHUNK: Final = 512


def start(routed: bool) -> bool:
    """Open COM2, its interrupt routed, and say HELLO; False: there is none, or nobody hears its interrupt."""
    if not routed or not serial.open_port(com2, serial.COM2_PORT):
        com2.present = False
        return False
    com2.holds_back = True
    serial.start_port(com2)
    link.hello_due = True
    owe(WORK_CHANNEL)
    return True


def poll(cpu: Cpu) -> None:
    """Obey and send, a bounded piece."""
    if not com2.present:
        return
    if receive():
        cpu.work |= WORK_CHANNEL
    if serial.queued(com2) >= serial.LOW_BYTES:
        com2.wants_room = True
        return
    com2.wants_room = send_next()
    if com2.wants_room and serial.queued(com2) < serial.LOW_BYTES:
        cpu.work |= WORK_CHANNEL


def receive() -> bool:
    """Take bytes up to the end of a frame, and obey that; True: there may be more. None is taken while a request is answered."""
    for _ in range(BYTES_A_POLL):
        if link.answer.active or serial.queued(com2) > serial.OUTPUT_BYTES // 2:
            return False
        byte = serial.take_from(com2)
        if byte == serial.NO_INPUT:
            return False
        if frames.feed(link.parser, u8(byte)):
            obey()
            return True
    return True


def obey() -> None:
    """The frame in the parser."""
    header = frames.header_of(link.parser)
    place = frames.payload_at(link.parser)
    if header.kind == FrameKind.HELLO:
        hello(header, place)
    elif not link.connected:
        refuse(header, Refusal.KIND)
    elif header.kind == FrameKind.COMMAND:
        command(header, place)
    elif header.kind == FrameKind.QUERY:
        query(header, place)
    elif header.kind in (FrameKind.CONSOLE, FrameKind.CREDIT, FrameKind.CLOSE):
        for_console(header, place)
    else:
        refuse(header, Refusal.KIND)


def refuse(header: FrameHeader, why: Refusal) -> None:
    """Tell the host, the latest refusal if there are several at a time."""
    link.refusal_due = True
    link.refusal_why = why
    link.refusal_kind = header.kind
    link.refusal_stream = header.stream


def hello(header: FrameHeader, place: u64) -> None:
    """The host begins, or begins anew."""
    if header.length != sizeof(Hello) or at(Hello, place).version != CHANNEL_VERSION:
        refuse(header, Refusal.LENGTH)
        return
    for machine in vm.table.vms:
        if machine is not None:
            consoles.close(machine)
    link.connected = True
    link.flags = at(Hello, place).flags
    link.hello_due = True
    link.answer.active = False
    link.refusal_due = False
    link.log_next = log.first_kept()
    link.event_next = events.first_kept()
    if link.flags & WANT_CONSOLES != 0:
        for machine in vm.table.vms:
            if machine is not None:
                consoles.allow(machine, CONSOLE_OUTPUT_BYTES)


def command(header: FrameHeader, place: u64) -> None:
    """Run a line as if it were typed at the prompt; what it prints is the answer."""
    length: u32 = header.length
    if length >= COMMAND_BYTES:
        refuse(header, Refusal.LENGTH)
        return
    for i in range(length):
        byte = load_u8(place + i)
        link.command[i] = byte if guest_console.is_printable(byte) else ord("?")
    link.command[length] = 0
    begin_answer(header.stream, FrameKind.TEXT)
    console.start_capture()
    operator_commands.run(address(link.command))
    console.capture.active = False
    link.answer.refused = console.capture.refused


def query(header: FrameHeader, place: u64) -> None:
    """Begin to answer with records."""
    if header.length != sizeof(Query):
        refuse(header, Refusal.LENGTH)
    elif at(Query, place).what == QueryKind.VMS:
        begin_answer(header.stream, FrameKind.VM)
    elif at(Query, place).what == QueryKind.HOST:
        begin_answer(header.stream, FrameKind.HOST)
    else:
        refuse(header, Refusal.QUERY)


def begin_answer(stream: u32, kind: FrameKind) -> None:
    """Frames of this kind will be sent, then END."""
    console.capture.lost = 0
    link.answer.active = True
    link.answer.stream = stream
    link.answer.kind = kind
    link.answer.next = 0
    link.answer.refused = False


def for_console(header: FrameHeader, place: u64) -> None:
    """Bytes typed, credit, or the end of them, for the VM that `stream` names."""
    machine = vm.by_handle(header.stream)
    if machine is None:
        refuse(header, Refusal.HANDLE)
    elif header.kind == FrameKind.CLOSE:
        consoles.close(machine)
    elif header.kind == FrameKind.CREDIT:
        if header.length != sizeof(Credit):
            refuse(header, Refusal.LENGTH)
        else:
            consoles.allow(machine, at(Credit, place).bytes)
            link.consoles_dirty = True
    else:
        for i in range(header.length):
            if guest_console.type_byte(machine, load_u8(place + i)):
                machine.console.from_host += 1
            else:
                refuse(header, Refusal.CREDIT)
                break
        service.typed(machine)


def send_next() -> bool:
    """Send the first thing that is owed; False: nothing is."""
    if link.hello_due:
        link.hello_due = False
        send_hello()
        return True
    if not link.connected:
        return False
    if link.refusal_due:
        link.refusal_due = False
        refused = Refused()
        refused.why = link.refusal_why
        refused.kind = link.refusal_kind
        send(FrameKind.REFUSED, link.refusal_stream, address(refused), sizeof(Refused))
        return True
    return send_log() or send_event() or send_answer() or send_console() or send_trace()


def send_hello() -> None:
    """Who we are."""
    hello = Hello()
    hello.version = CHANNEL_VERSION
    hello.payload_most = PAYLOAD_MOST
    hello.console_bytes = CONSOLE_OUTPUT_BYTES
    send(FrameKind.HELLO, 0, address(hello), sizeof(Hello))


def send_log() -> bool:
    """The next message of the log."""
    if link.flags & WANT_LOG == 0 or link.log_next == log.ring.written:
        return False
    link.log_next = max(link.log_next, log.first_kept())
    message = log.get(link.log_next)
    record = LogRecord()
    record.us = message.us
    record.level = message.level
    for i in range(log.TEXT_BYTES):
        record.text[i] = message.text[i]
    send(FrameKind.LOG, u32(link.log_next & 0xFFFF_FFFF), address(record), sizeof(LogRecord))
    link.log_next += 1
    return True


def send_event() -> bool:
    """The next event."""
    if link.flags & WANT_EVENTS == 0 or link.event_next == events.ring.written:
        return False
    link.event_next = max(link.event_next, events.first_kept())
    kept = events.get(link.event_next)
    send(FrameKind.EVENT, kept.handle, address(kept.record), sizeof(EventRecord))
    link.event_next += 1
    return True


def send_answer() -> bool:
    """The next frame of the answer, or its end."""
    answer = link.answer
    if not answer.active:
        return False
    if answer.kind == FrameKind.TEXT and answer.next < console.capture.length:
        length: u32 = u32(min(TEXT_CHUNK, console.capture.length - answer.next))
        send(FrameKind.TEXT, answer.stream, address(console.capture.text) + answer.next, length)
        answer.next += length
        return True
    if answer.kind == FrameKind.VM:
        while answer.next < MAX_VMS:
            machine = vm.table.vms[answer.next]
            answer.next += 1
            if machine is not None:
                records.fill_vm(machine)
                send(FrameKind.VM, answer.stream, address(records.vm_record), sizeof(VmRecord))
                return True
    if answer.kind == FrameKind.HOST and answer.next == 0:
        answer.next = 1
        records.fill_host()
        send(FrameKind.HOST, answer.stream, address(records.host_record), sizeof(HostRecord))
        return True
    answer.active = False
    end = End()
    end.refused = 1 if answer.refused else 0
    end.lost = console.capture.lost
    send(FrameKind.END, answer.stream, address(end), sizeof(End))
    return True


def send_console() -> bool:
    """A piece of the output of the next guest that has some, or the credit that it has."""
    for step in range(MAX_VMS):
        place: u32 = (link.console_turn + step) % MAX_VMS
        machine = vm.table.vms[place]
        if machine is not None and machine.console.opened and send_console_of(machine):
            link.console_turn = place + 1
            return True
    return False


def send_console_of(machine: Vm) -> bool:
    """Credit first, so that keys are not held up by output. False: nothing is owed."""
    gathered = machine.console
    if consoles.credit_due(gathered):
        credit = Credit()
        credit.bytes = gathered.owed
        gathered.owed = 0
        send(FrameKind.CREDIT, events.handle_of(machine), address(credit), sizeof(Credit))
        return True
    start: u32 = gathered.output_tail % CONSOLE_OUTPUT_BYTES
    length: u32 = u32(min(min(consoles.sendable(machine), CONSOLE_CHUNK), CONSOLE_OUTPUT_BYTES - start))
    if length == 0:
        return False
    send(FrameKind.CONSOLE, events.handle_of(machine), address(gathered.output) + start, length)
    gathered.output_tail = wrap_u32(gathered.output_tail + length)
    gathered.credit -= length
    consoles.wake_writers(machine)
    return True


def send_trace() -> bool:
    """The next piece of a trace that has ended: header, records, header."""
    if not sending.due:
        return False
    part = TracePart.RECORDS if sending.begun else TracePart.HEADER
    if sending.begun:
        for ring in trace.rings:
            count: u32 = min(ring.written - ring.sent, RECORDS_A_FRAME)
            if count != 0:
                send(FrameKind.TRACE, part, ring.place + ring.sent * sizeof(TraceRecord), count * sizeof(TraceRecord))
                ring.sent += count
                return True
        part = TracePart.END
        sending.due = False
        trace_rings.give_back()
    sending.begun = True
    send(FrameKind.TRACE, part, address(trace.header), sizeof(TraceHeader))
    return True


def send(kind: FrameKind, stream: u32, place: u64, length: u64) -> None:
    """One frame into the UART's ring, which has room: poll asks before."""
    assert length <= PAYLOAD_MOST
    header = FrameHeader()
    frames.fill_header(header, kind, stream, u32(length))
    for i in range(sizeof(FrameHeader)):
        serial.put_to(com2, load_u8(address(header) + i))
    crc: u32 = frames.CRC_START
    for i in range(length):
        byte = load_u8(place + i)
        crc = frames.crc_step(crc, byte)
        serial.put_to(com2, byte)
    crc = crc ^ 0xFFFF_FFFF
    for i in range(4):
        serial.put_to(com2, u8((crc >> (8 * i)) & 0xFF))
