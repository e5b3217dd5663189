"""The host's end of the machine channel: a Unix socket for each guest's console, and requests from any thread or process.

A `Switchboard` serves one machine in a thread of its own. In its folder (or in `consoles`) stands `NAME` for each guest, a socket whose clients see
that guest's console (with its latest output) and type on it, and `.control`, which `krait list`, `top`, `console` and `command` use.
A client that does not read holds up its guest, not the others.
"""

import contextlib
import itertools
import json
import queue
import resource
import selectors
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from hypervisor import abi_channel as abi
from hypervisor import log
from hypervisor.abi_channel import EventKind, FrameKind, QueryKind
from krait import channel
from krait.channel import Frame
from krait.console_sockets import GuestConsole, Peer, file_name, listen, received
from krait.emulator import receive
from krait.records import Record, host_record, vm_record
from krait.trace import Collector
from krait.trace import file_of as trace_file

HISTORY_BYTES = 64 * 1024
"""What a newcomer on a console sees of the past."""

BACKLOG_BYTES = 256 * 1024
"""What may wait for a client that does not read, before its guest is held up."""

CONTROL, CONSOLES = ".control", ".consoles"
"""Names that no guest can have: the socket for requests, and the link to the folder of consoles if that is elsewhere."""


@dataclass(frozen=True)
class Answer:
    """What came back for a request: text of a command, or records; `refused`: the hypervisor said no."""

    text: str = ""
    records: tuple[Record, ...] = ()
    refused: bool = False
    lost: int = 0


@dataclass
class _Request:
    future: "Future[Answer]"
    text: bytearray = field(default_factory=bytearray)
    records: list[Record] = field(default_factory=list)


class Switchboard:
    """Serves the channel of one machine until its socket ends; `close` ends it sooner. `events` are in the order they came."""

    def __init__(self, line: socket.socket, folder: Path, consoles: Path | None = None) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.consoles_folder = folder if consoles is None else consoles
        if consoles is not None:
            consoles.mkdir(parents=True, exist_ok=True)
            (folder / CONSOLES).symlink_to(consoles.resolve())
        self.consoles: dict[int, GuestConsole] = {}
        self.events: queue.Queue[Record] = queue.Queue()
        self.log: list[Record] = []
        self.refusals: list[Record] = []
        self.ready = threading.Event()
        """Set once the hypervisor has answered and the guests there were have their sockets."""
        self._line = Peer(line)
        self._reader = channel.Reader()
        self._requests: dict[int, _Request] = {}
        self._numbers = itertools.count(1)
        self._asked: queue.SimpleQueue[tuple[Frame, _Request | None]] = queue.SimpleQueue()
        self._bell, self._button = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._control = listen(folder / CONTROL)
        self._followers: list[Peer] = []
        self._trace = Collector()
        self._trace_wanted: dict[int, Future[bytes]] = {}
        self._ended = False
        self._asking = threading.Lock()
        self._deaf = False
        """Under `_asking`: nobody takes requests any more."""
        self._thread = threading.Thread(target=self._serve, name="switchboard", daemon=True)
        self._thread.start()

    # What other threads may call.

    def command(self, text: str, timeout: float | None = 60.0) -> Answer:
        """Run a line as at the operator's prompt. TimeoutError; ConnectionError: the machine has ended."""
        return self._ask(FrameKind.COMMAND, text.encode("ascii", "replace")).result(timeout)

    def vms(self, timeout: float | None = 60.0) -> list[Record]:
        """A record for each VM, in the order of the table."""
        return list(self._query(QueryKind.VMS).result(timeout).records)

    def host(self, timeout: float | None = 60.0) -> Record:
        """The machine's record."""
        return self._query(QueryKind.HOST).result(timeout).records[0]

    def trace(self, session: int) -> "Future[bytes]":
        """The file of a trace that has been begun, once it has ended and come over (krait/trace.py). ConnectionError: the machine has ended."""
        wanted = self._trace_wanted.setdefault(session, Future())
        self._ring()
        return wanted

    def close(self) -> None:
        """End the thread; consoles and requests end with it."""
        self._ended = True
        self._ring()
        self._thread.join()

    def _ask(self, kind: FrameKind, payload: bytes) -> "Future[Answer]":
        request = _Request(Future())
        if len(payload) > abi.PAYLOAD_MOST:
            request.future.set_result(Answer(f"refused: too long: {len(payload)} bytes; {abi.PAYLOAD_MOST} fit\n", refused=True))
            return request.future
        with self._asking:
            deaf = self._deaf
            if not deaf:
                self._asked.put((Frame(kind, next(self._numbers), payload), request))
        if deaf:
            request.future.set_exception(ConnectionError("the machine has ended"))
        else:
            self._ring()
        return request.future

    def _query(self, what: QueryKind) -> "Future[Answer]":
        query = abi.Query()
        query.what = what
        return self._ask(FrameKind.QUERY, channel.bytes_of(query))

    def _ring(self) -> None:
        with contextlib.suppress(OSError):
            self._button.send(b"!")

    # The thread.

    def _serve(self) -> None:
        self._watch(self._bell, self._bell_rings)
        self._watch(self._control, lambda: self._newcomer(self._control, self._from_control))
        self._selector.register(self._line.connection, selectors.EVENT_READ, self._from_line)
        try:
            while not self._ended:
                for key, _ in self._selector.select():
                    # What came before it in the same batch may have closed it.
                    if isinstance(key.fileobj, int) or key.fileobj.fileno() >= 0:
                        key.data()
                self._mind_writers()
        finally:
            self._finish()

    def _watch(self, source: socket.socket, handler: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, handler)

    def _finish(self) -> None:
        self._ended = True
        self.ready.set()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket) and key.fileobj is not self._line.connection:
                key.fileobj.close()
        for console in self.consoles.values():
            console.close()
        (self.folder / CONTROL).unlink(missing_ok=True)
        with self._asking:
            self._deaf = True
        self._bell_rings_for_last()
        for wanted in self._trace_wanted.values():
            wanted.set_exception(ConnectionError("the machine has ended"))
        for request in self._requests.values():
            request.future.set_exception(ConnectionError("the machine has ended"))
        self._selector.close()
        self._button.close()

    def _bell_rings_for_last(self) -> None:
        while not self._asked.empty():
            _, request = self._asked.get()
            if request is not None:
                request.future.set_exception(ConnectionError("the machine has ended"))

    def _mind_writers(self) -> None:
        """Look at sockets that did not take all of what is for them when they can take more."""
        for key in list(self._selector.get_map().values()):
            peer = getattr(key.data, "peer", None) or (self._line if key.fileobj is self._line.connection else None)
            if peer is not None:
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.held else 0)
                if key.events != wanted:
                    self._selector.modify(key.fileobj, wanted, key.data)

    def _send(self, frame: Frame) -> None:
        if not self._line.send(channel.encode(frame)):
            self._ended = True

    def _hand_out_trace(self) -> None:
        finished = self._trace.finished
        if finished is not None and finished[0] in self._trace_wanted:
            names = {console.handle: console.name for console in self.consoles.values()}
            self._trace_wanted.pop(finished[0]).set_result(trace_file(finished[1], names, finished[2]))

    def _bell_rings(self) -> None:
        self._bell.recv(4096)
        while not self._asked.empty():
            frame, request = self._asked.get()
            if request is not None:
                self._requests[frame.stream] = request
            self._send(frame)
        self._hand_out_trace()

    # From the hypervisor.

    def _from_line(self) -> None:
        self._line.flush()
        try:
            data = receive(self._line.connection)
        except BlockingIOError:
            return
        if not data:
            self._ended = True
        for frame in self._reader.feed(data):
            self._obey(frame)

    def _obey(self, frame: Frame) -> None:
        request = self._requests.get(frame.stream)
        match frame.kind:
            case FrameKind.HELLO:
                self._hello()
            case FrameKind.TEXT if request is not None:
                request.text += frame.payload
            case FrameKind.VM if request is not None:
                request.records.append(vm_record(frame.payload))
            case FrameKind.HOST if request is not None:
                request.records.append(host_record(frame.payload))
            case FrameKind.END if request is not None:
                del self._requests[frame.stream]
                end = channel.decode(abi.End, frame.payload)
                text = request.text.decode("ascii", "replace")
                request.future.set_result(Answer(text, tuple(request.records), bool(end["refused"]), end["lost"]))
            case FrameKind.CONSOLE if frame.stream in self.consoles:
                self._console_output(self.consoles[frame.stream], frame.payload)
            case FrameKind.CREDIT if frame.stream in self.consoles:
                self.consoles[frame.stream].may_type += channel.decode(abi.Credit, frame.payload)["bytes"]
                self._type(self.consoles[frame.stream])
            case FrameKind.EVENT:
                self._event(frame)
            case FrameKind.LOG:
                record = channel.decode(abi.LogRecord, frame.payload)
                self._tell({"log": {"number": frame.stream, "us": record["us"], "level": log.LEVEL_NAMES[record["level"]],
                                    "text": record["text"]}})  # fmt: skip
            case FrameKind.TRACE:
                self._trace.take(frame)
                self._hand_out_trace()
            case FrameKind.REFUSED:
                self._refused(frame)
            case _:
                pass  # an answer to a request of the life before our HELLO, or a kind that is new

    def _hello(self) -> None:
        """The hypervisor has begun, or answers us."""
        if not self.ready.is_set() and not self._requests:
            hello = abi.Hello()
            hello.version = abi.CHANNEL_VERSION
            hello.flags = abi.WANT_EVENTS | abi.WANT_LOG | abi.WANT_CONSOLES
            self._send(Frame(FrameKind.HELLO, 0, channel.bytes_of(hello)))
            self._query(QueryKind.VMS).add_done_callback(self._all_known)

    def _all_known(self, future: "Future[Answer]") -> None:
        if future.exception() is None:
            for record in future.result().records:
                self._know(record["handle"], record["name"])
        self.ready.set()

    def _refused(self, frame: Frame) -> None:
        record = channel.decode(abi.Refused, frame.payload)
        self.refusals.append(record)
        request = self._requests.pop(frame.stream, None)
        if request is not None:
            request.future.set_result(Answer(f"refused: {abi.Refusal(record['why']).name.lower()}\n", refused=True))

    def _event(self, frame: Frame) -> None:
        record = channel.decode(abi.EventRecord, frame.payload)
        kind = EventKind(record["kind"])
        event = {"number": record["number"], "us": record["us"], "event": kind.name.lower(), "handle": frame.stream,
                 "name": record["name"], "code": record["code"], "text": record["text"]}  # fmt: skip
        if kind == EventKind.DESTROYED:
            self._forget(frame.stream)
        elif record["name"]:
            self._know(frame.stream, record["name"])
        self.events.put(event)
        self._tell({"event": event})

    def _tell(self, message: Record) -> None:
        if "log" in message:
            self.log.append(message["log"])
        line = json.dumps(message).encode() + b"\n"
        for peer in self._followers:
            peer.send(line)

    # Consoles.

    def _know(self, handle: int, name: str) -> None:
        """A VM has its socket from now on; one of the same name before it lets go of its own."""
        if handle in self.consoles:
            return
        for other in [other for other in self.consoles.values() if other.name == name]:
            self._forget(other.handle)
        console = self.consoles[handle] = GuestConsole(handle, name, self.consoles_folder / file_name(handle, name))
        self._watch(console.listener, lambda: self._newcomer(console.listener, lambda peer: self._from_guests_client(console, peer),
                                                            lambda peer: self._welcome(console, peer)))  # fmt: skip

    def _forget(self, handle: int) -> None:
        console = self.consoles.pop(handle, None)
        if console is not None:
            self._selector.unregister(console.listener)
            for peer in list(console.peers):
                self._drop(peer)
            console.close()

    def _newcomer(self, listener: socket.socket, handler: Callable[[Peer], None],
                  welcome: Callable[[Peer], None] = lambda peer: None) -> None:  # fmt: skip
        connection, _ = listener.accept()
        peer = Peer(connection)

        def readable() -> None:
            peer.flush()
            handler(peer)

        readable.peer = peer  # type: ignore[attr-defined]
        self._watch(connection, readable)
        welcome(peer)

    def _welcome(self, console: GuestConsole, peer: Peer) -> None:
        console.peers.append(peer)
        peer.send(bytes(console.history))

    def _drop(self, peer: Peer) -> None:
        self._selector.unregister(peer.connection)
        peer.connection.close()
        for console in self.consoles.values():
            if peer in console.peers:
                console.peers.remove(peer)
        if peer in self._followers:
            self._followers.remove(peer)

    def _console_output(self, console: GuestConsole, data: bytes) -> None:
        console.history += data
        del console.history[:-HISTORY_BYTES]
        console.taken += len(data)
        for peer in list(console.peers):
            if not peer.send(data):
                self._drop(peer)
        self._give_credit(console)

    def _give_credit(self, console: GuestConsole) -> None:
        """Let the guest print on, unless a client is behind."""
        if console.taken and all(len(peer.held) < BACKLOG_BYTES for peer in console.peers):
            credit = abi.Credit()
            credit.bytes = console.taken
            console.taken = 0
            self._send(Frame(FrameKind.CREDIT, console.handle, channel.bytes_of(credit)))

    def _from_guests_client(self, console: GuestConsole, peer: Peer) -> None:
        self._give_credit(console)
        data = received(peer)
        if data is None:
            return
        if not data:
            self._drop(peer)
            self._give_credit(console)
            return
        console.typed += data
        self._type(console)

    def _type(self, console: GuestConsole) -> None:
        """As many bytes as the guest has room for."""
        while console.typed and console.may_type:
            piece = bytes(console.typed[: min(console.may_type, abi.PAYLOAD_MOST)])
            del console.typed[: len(piece)]
            console.may_type -= len(piece)
            self._send(Frame(FrameKind.CONSOLE, console.handle, piece))

    # Other processes.

    def _from_control(self, peer: Peer) -> None:
        """One JSON object a line: {"command": TEXT}, {"query": "vms" or "host"}, {"follow": true}."""
        data = received(peer)
        if data is None:
            return
        if not data:
            self._drop(peer)
            return
        for line in data.splitlines():
            try:
                self._control_request(peer, json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                peer.send(json.dumps({"error": f"{error}"}).encode() + b"\n")

    def _control_request(self, peer: Peer, request: Record) -> None:
        if request.get("follow"):
            self._followers.append(peer)
            return
        if "trace" in request:
            self.trace(int(request["trace"])).add_done_callback(lambda done: peer.send(_trace_line(done)))
            return
        if "command" in request:
            future = self._ask(FrameKind.COMMAND, str(request["command"]).encode("ascii", "replace"))
        else:
            future = self._query({"vms": QueryKind.VMS, "host": QueryKind.HOST}[request["query"]])

        def answered(done: "Future[Answer]") -> None:
            error = done.exception()
            answer = done.result() if error is None else Answer(str(error), refused=True)
            message = {"text": answer.text, "records": answer.records, "refused": answer.refused, "lost": answer.lost}
            peer.send(json.dumps(message).encode() + b"\n")

        future.add_done_callback(answered)


def _trace_line(done: "Future[bytes]") -> bytes:
    error = done.exception()
    data = b"" if error is not None else done.result()
    return json.dumps({"records": [], "trace": data.hex(), "refused": error is not None, "text": "" if error is None else str(error)}).encode() + b"\n"
