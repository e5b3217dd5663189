"""Traces of scheduling as files: taken from a running machine, decoded by hypervisor/abi_trace.py, shown as a timeline.

A file is a TraceHeader, a TraceName for each VM and one without a name, and the records.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervisor import abi_trace as abi
from hypervisor.abi_trace import TraceHeader, TraceKind, TraceName, TracePart, TraceRecord
from hypervisor.lang import sizeof
from krait import channel
from krait.channel import Frame
from krait.outcome import ExitCode, KraitError

NS_PER_US = 1000


@dataclass(frozen=True)
class Event:
    """One record, its kind named; `vcpu` is None where it is of none."""

    kind: TraceKind
    time: int
    value: int
    answer: int
    vm: int
    vcpu: int | None
    cpu: int

    @property
    def who(self) -> tuple[int, int] | None:
        """VM and vCPU."""
        return None if self.vcpu is None else (self.vm, self.vcpu)


@dataclass(frozen=True)
class Trace:
    """A whole one. The header's fields by name; times in TSC ticks."""

    header: Mapping[str, Any]
    names: Mapping[int, str]
    events: Sequence[Event]

    def us(self, time: int) -> float:
        """Microseconds since the trace began."""
        return (time - int(self.header["began"])) * 1000 / int(self.header["khz"])

    def name(self, vm: int) -> str:
        """Of a VM; one that was gone when the trace ended has its number."""
        return self.names.get(vm, f"vm {vm & 0xFFFF}")


class Collector:
    """Puts TRACE frames together; `finished` is the latest whole trace, as its session and the bytes of a file without names."""

    def __init__(self) -> None:
        self.finished: tuple[int, bytes, bytes] | None = None
        self._records = bytearray()

    def take(self, frame: Frame) -> None:
        """The next frame of the channel."""
        if frame.stream == TracePart.HEADER:
            self._records.clear()
            self.finished = None
        elif frame.stream == TracePart.RECORDS:
            self._records += frame.payload
        elif frame.stream == TracePart.END:
            session = int(channel.decode(TraceHeader, frame.payload)["session"])
            self.finished = (session, frame.payload, bytes(self._records))
            self._records.clear()


def file_of(header: bytes, names: Mapping[int, str], records: bytes) -> bytes:
    """The bytes of a file."""
    named = b""
    for handle, text in {**names, 0: ""}.items() if 0 not in names else [*names.items(), (0, "")]:
        entry = TraceName()
        entry.vm = handle
        for place, byte in enumerate(text.encode("ascii", "replace")[:31]):
            entry.name[place] = byte
        named += channel.bytes_of(entry)
    return header + named + records


def read(path: Path) -> Trace:
    """Decode a file. KraitError: it is none of this version, or damaged."""
    return decode(path.read_bytes())


def decode(data: bytes) -> Trace:
    """The same of a file's bytes."""
    size = sizeof(TraceHeader)
    if len(data) < size:
        raise KraitError("that is no trace: it is too short", ExitCode.USAGE)
    header = channel.decode(TraceHeader, data[:size])
    found = (header["magic"], header["version"], header["record_bytes"])
    if found != (abi.TRACE_MAGIC, abi.TRACE_VERSION, sizeof(TraceRecord)):
        raise KraitError(f"that is no trace of version {abi.TRACE_VERSION}: it says {found}", ExitCode.USAGE)
    names: dict[int, str] = {}
    place = size
    while True:
        entry = channel.decode(TraceName, _piece(data, place, sizeof(TraceName)))
        place += sizeof(TraceName)
        if not entry["name"]:
            break
        names[entry["vm"]] = entry["name"]
    records = [channel.decode(TraceRecord, _piece(data, at, sizeof(TraceRecord))) for at in range(place, len(data), sizeof(TraceRecord))]
    records.sort(key=lambda record: int(record["number"]))
    if [record["number"] for record in records] != list(range(header["records"])):
        raise KraitError(f"the trace is damaged: {len(records)} records, its header says {header['records']}", ExitCode.FAILED)
    return Trace(header, names, [_event(record) for record in records])


def _piece(data: bytes, place: int, size: int) -> bytes:
    if place + size > len(data):
        raise KraitError("the trace is damaged: it ends within a record", ExitCode.FAILED)
    return data[place : place + size]


def _event(record: Mapping[str, Any]) -> Event:
    vcpu = None if record["vcpu"] == abi.NO_VCPU else int(record["vcpu"])
    try:
        kind = TraceKind(record["kind"])
    except ValueError:
        raise KraitError(f"the trace is damaged: no record has the kind {record['kind']}", ExitCode.FAILED) from None
    return Event(kind, record["time"], record["value"], record["answer"], record["vm"], vcpu, record["cpu"])


CPUS_PROCESS = 1
"""Of the timeline: the one whose threads are the host's CPUs; VMs follow."""


def timeline(trace: Trace) -> dict[str, Any]:
    """In the JSON trace format that Perfetto and Chrome's about:tracing open: a track for each host CPU, and one for each vCPU that says
    whether it runs or waits. Times in us since the trace began."""
    tracks = _Tracks(trace)
    for event in trace.events:
        tracks.see(event)
    tracks.end()
    return {"displayTimeUnit": "ms", "traceEvents": tracks.named + tracks.events,
            "otherData": {"policy": trace.header["policy"], "records": trace.header["records"], "full": bool(trace.header["full"])}}  # fmt: skip


class _Tracks:
    """Puts spans together: complete events ("X") and instants ("i") of the format."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.events: list[dict[str, Any]] = []
        self.named: list[dict[str, Any]] = []
        self.running: dict[int, tuple[tuple[int, int], float]] = {}
        self.waiting: dict[tuple[int, int], float] = {}
        self._known: set[tuple[int, int]] = set()
        self.last = 0.0
        self._name("process_name", CPUS_PROCESS, 0, "host CPUs")
        for cpu in range(trace.header["cpus"]):
            self._name("thread_name", CPUS_PROCESS, cpu, f"CPU {cpu}")

    def see(self, event: Event) -> None:
        """The next one."""
        at = max(self.trace.us(event.time), 0.0)
        self.last = max(self.last, at)
        who = event.who
        match event.kind:
            case TraceKind.RUNS | TraceKind.PICK if who is not None:
                self._span(who, "waits", self.waiting.pop(who, at), at)
                self.running[event.cpu] = (who, at)
            case TraceKind.REQUEUE if who is not None:
                self._stops(who, at)
                self.waiting[who] = at
            case TraceKind.DEQUEUE if who is not None:
                self._stops(who, at)
                self._span(who, "waits", self.waiting.pop(who, at), at)
            case TraceKind.ENQUEUE if who is not None:
                self.waiting[who] = at
                self._instant(who, "wakes", at)
            case TraceKind.YIELD | TraceKind.YIELD_TO if who is not None:
                self._instant(who, event.kind.name.lower().replace("_", " "), at)
            case TraceKind.SELECT:
                self.events.append({"name": f"policy {event.value}", "ph": "i", "s": "g", "ts": at, "pid": CPUS_PROCESS, "tid": 0})
            case _:
                pass

    def end(self) -> None:
        """What has not ended yet does."""
        for who, _ in list(self.running.values()):
            self._stops(who, self.last)
        for who, since in self.waiting.items():
            self._span(who, "waits", since, self.last)
        self.events.sort(key=lambda event: float(event["ts"]))

    def _stops(self, who: tuple[int, int], at: float) -> None:
        for cpu, (running, since) in list(self.running.items()):
            if running == who:
                del self.running[cpu]
                self._span(who, "runs", since, at)
                self.events.append({"name": f"{self.trace.name(who[0])}.{who[1]}", "ph": "X", "ts": since, "dur": at - since,
                                    "pid": CPUS_PROCESS, "tid": cpu})  # fmt: skip

    def _span(self, who: tuple[int, int], name: str, since: float, at: float) -> None:
        if at > since:
            self._know(who)
            self.events.append({"name": name, "ph": "X", "ts": since, "dur": at - since, "pid": self._process(who), "tid": who[1]})

    def _instant(self, who: tuple[int, int], name: str, at: float) -> None:
        self._know(who)
        self.events.append({"name": name, "ph": "i", "s": "t", "ts": at, "pid": self._process(who), "tid": who[1]})

    def _process(self, who: tuple[int, int]) -> int:
        return CPUS_PROCESS + 1 + who[0]

    def _know(self, who: tuple[int, int]) -> None:
        if who not in self._known:
            if all(vm != who[0] for vm, _ in self._known):
                self._name("process_name", self._process(who), 0, self.trace.name(who[0]))
            self._known.add(who)
            self._name("thread_name", self._process(who), who[1], f"vCPU {who[1]}")

    def _name(self, kind: str, process: int, thread: int, name: str) -> None:
        self.named.append({"name": kind, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}})


def write_timeline(trace: Trace, path: Path) -> None:
    """As JSON."""
    path.write_text(json.dumps(timeline(trace)))
