"""The one closed set of results of fallible functions inside the hypervisor."""
from enum import IntEnum


class Status(IntEnum):
    """OK, or why not. WAIT: block the vCPU and run the exit again."""

    OK = 0
    WAIT = 1
    BAD_ADDRESS = 2
    BAD_ARGUMENT = 3
    NO_MEMORY = 4
    NOT_FOUND = 5
    UNSUPPORTED = 6
    BUSY = 7
    QUOTA = 8
