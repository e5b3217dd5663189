"""Names of VMs come from the bundle and stand before each line that a guest prints: no byte of one may act on a terminal."""
import pytest

from hypervisor import vm_config
from hypervisor.lang import clear


@pytest.mark.parametrize(("name", "good"), [
    (b"ada", True), (b"x" * 31, True), (b"", False), (b"a\x1b[2J", False), (b"a\nb", False), (b"\x9b", False)])
def test_only_printable_names_are_shown(name: bytes, good: bool) -> None:
    clear(vm_config.config)
    for index, byte in enumerate(name):
        vm_config.config.name[index] = byte
    assert vm_config.name_is_printable() == good
    clear(vm_config.config)
