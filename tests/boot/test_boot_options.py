"""Numbers on the command line."""
import pytest

from hypervisor import boot_options
from hypervisor.boot_info import CMDLINE_BYTES, info
from hypervisor.lang import clear


@pytest.mark.parametrize(("line", "value"), [
    ("", 7), ("pin-seed=12", 12), ("quiet pin-seed=0x1f other", 31), ("xpin-seed=3", 7), ("pin-seed=", 7), ("pin-seed=0x", 7),
    ("pin-seed=12a", 7), ("pin-seeds=4 pin-seed=5", 5), ("pin-seed", 7), ("  pin-seed=0  ", 0), ("pin-seed=0xffffffffffffffff", 2**64 - 1),
    ("a" * 244 + " pin-seed=9", 9), ("a" * 246 + " pin-seed", 7)])
def test_number(line: str, value: int) -> None:
    clear(info)
    for index, character in enumerate(line[:CMDLINE_BYTES - 1]):
        info.cmdline[index] = ord(character)
    assert boot_options.number("pin-seed", 7) == value
