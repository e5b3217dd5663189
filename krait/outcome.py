"""How the command ends: its exit codes, and the one exception that carries them."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of `krait`; docs/running.md lists them for users."""

    OK = 0
    FAILED = 1
    USAGE = 2
    MISSING = 3
    TIMEOUT = 4
    BUILD = 5
    INTERRUPTED = 130


class KraitError(Exception):
    """What a user can act on: a message in one or more lines, and the exit code it ends with."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code
