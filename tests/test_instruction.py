"""Software decoding of the few instructions that exits leave undecoded, against an assembler's encodings."""
import pytest

from hypervisor.addresses import Hva
from hypervisor.arch_x86 import instruction
from hypervisor.arch_x86.instruction import Decoded
from hypervisor.lang import address, array, u8


def decoded(code: str, long_mode: bool = True, cut: int = 15) -> Decoded:
    buffer = array(u8, 16)
    data = bytes.fromhex(code)
    for index, byte in enumerate(data):
        buffer[index] = byte
    found = Decoded()
    instruction.decode(Hva(address(buffer)), min(len(data), cut), long_mode, found)
    return found


@pytest.mark.parametrize("code, length, number, register", [
    ("0f22e0", 3, 4, 0),  # mov cr4, rax
    ("0f22e7", 3, 4, 7),  # mov cr4, rdi
    ("410f22e0", 4, 4, 8),  # mov cr4, r8
    ("440f22c3", 4, 8, 3),  # mov cr8, rbx
    ("450f20c7", 4, 8, 15),  # mov r15, cr8
    ("0f20e1", 3, 4, 1),  # mov rcx, cr4
    ("0f2224", 3, 4, 4),  # the mod field is ignored
    ("660f22e0", 4, 4, 0), ("f23e0f22e2", 5, 4, 2), ("66410f22e1", 5, 4, 9),
    ("0f23f8", 3, 7, 0), ("0f21f0", 3, 6, 0)])
def test_move_of_a_control_register(code: str, length: int, number: int, register: int) -> None:
    found = decoded(code)
    assert (found.length, found.number, found.register) == (length, number, register)
    assert instruction.MOV_FROM_CR <= found.opcode <= instruction.MOV_TO_DR


def test_rex_is_an_instruction_outside_long_mode() -> None:
    """41 is INC ECX there."""
    found = decoded("410f22e0", long_mode=False)
    assert (found.opcode, found.length) == (0x41, 1)


@pytest.mark.parametrize("code, length", [("0fa2", 2), ("f30fa2", 3), ("480fa2", 3), ("0f32", 2), ("f4", 1), ("0f01d9", 3)])
def test_length(code: str, length: int) -> None:
    assert decoded(code).length == length


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_cut_off(cut: int) -> None:
    assert decoded("410f22e0", cut=cut).length == 0


def test_nothing_but_prefixes() -> None:
    assert decoded("66" * 15).length == 0
