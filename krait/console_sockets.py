"""Unix sockets that guests' consoles are reached by: listeners, and clients that never make us wait."""

import re
import socket
from pathlib import Path

from krait import paths


class Peer:
    """A connected socket that never makes us wait: what it does not take is held."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.setblocking(False)
        self.held = bytearray()

    def send(self, data: bytes) -> bool:
        """Pass on, or hold; False: it is gone."""
        self.held += data
        return self.flush()

    def flush(self) -> bool:
        """Pass on what is held, as far as it goes; False: it is gone."""
        try:
            while self.held:
                del self.held[: self.connection.send(self.held)]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


class GuestConsole:
    """One guest's console: its socket, its clients, and how much may go each way."""

    def __init__(self, handle: int, name: str, path: Path) -> None:
        self.handle, self.name, self.path = handle, name, path
        self.listener = listen(path)
        self.peers: list[Peer] = []
        self.history = bytearray()
        self.typed = bytearray()
        self.may_type = 0
        self.taken = 0
        """Bytes that have come and for which the guest has no new credit yet."""

    def close(self) -> None:
        """Let everybody go and take the socket away."""
        self.listener.close()
        self.path.unlink(missing_ok=True)


def listen(path: Path) -> socket.socket:
    """A Unix socket at `path`, however long that is; one left behind by another process is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with paths.short(path) as name:
        listener.bind(name)
    listener.listen()
    listener.setblocking(False)
    return listener


def file_name(handle: int, name: str) -> str:
    """A VM's name, unless it would be no plain file's."""
    return name if re.fullmatch("[A-Za-z0-9_][A-Za-z0-9_.-]*", name) else f"vm-{handle}"


def received(peer: Peer) -> bytes | None:
    """What a client sent; empty: it is gone; None: nothing came."""
    try:
        return peer.connection.recv(65536)
    except BlockingIOError:
        return None
    except OSError:
        return b""
