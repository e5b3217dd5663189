"""Child processes that never outlive us: each in its own process group, killed as a group."""

import ctypes
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that the kernel sends us when the parent ends, however it ends."""


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """A running program; leaving the `with` block ends it and all that it started."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self.pidfd = os.pidfd_open(self.process.pid)

    def wait(self, timeout: float | None) -> int | None:
        """The exit status (negative: killed by that signal), or None when `timeout` seconds pass first."""
        ready, _, _ = select.select([self.pidfd], [], [], timeout)
        return self.process.wait() if ready else None

    def stop(self) -> None:
        """End the process group at once; does nothing when the program has ended and was waited for."""
        if self.process.returncode is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it ended between the look and the signal
            self.process.wait()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
