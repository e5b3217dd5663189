"""PCI configuration space: what a system looks for at boot, sizes of base addresses, and nothing that upsets it."""
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.devices import msix, pci_function, pci_host
from hypervisor.devices.msix import Msix
from hypervisor.devices.pci_function import VECTORS
from hypervisor.devices.pci_host import PciHost

BLOCK = 2
MSIX_PAGE = 0xE000_2000


def fresh() -> PciHost:
    """The bridge, and a block device with messages as device 2."""
    host = PciHost()
    pci_host.reset(host)
    pci_function.make_virtio(host.functions[2], BLOCK, 0x010000, 0xC200, 10)
    pci_function.add_msix(host.functions[2], MSIX_PAGE)
    return host


def get(host: PciHost, slot: int, offset: int, size: int = 4) -> int:
    pci_host.write_address(host, 0x8000_0000 | slot << 11 | offset & 0xFC)
    return pci_host.read_data(host, offset & 3, size)


def put(host: PciHost, slot: int, offset: int, value: int, size: int = 4) -> None:
    pci_host.write_address(host, 0x8000_0000 | slot << 11 | offset & 0xFC)
    pci_host.write_data(host, offset & 3, size, value)


def test_the_bridge_is_found_and_cannot_be_changed() -> None:
    host = fresh()
    assert (get(host, 0, 0), get(host, 0, 10, 2), get(host, 0, 14, 1)) == (0x0008_1B36, 0x0600, 0)
    for offset in range(0, 256, 4):
        put(host, 0, offset, 0xFFFF_FFFF)
    assert [get(host, 0, offset) for offset in range(0, 256, 4)] == [get(fresh(), 0, offset) for offset in range(0, 256, 4)]


def test_what_is_absent_reads_ones() -> None:
    host = fresh()
    assert [get(host, 1, 0, size) for size in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFF_FFFF]
    pci_host.write_address(host, 0x8000_0100 | 2 << 11)  # function 1
    assert pci_host.read_data(host, 0, 4) == 0xFFFF_FFFF
    pci_host.write_address(host, 0x8001_0000)  # bus 1
    assert pci_host.read_data(host, 0, 4) == 0xFFFF_FFFF
    pci_host.write_address(host, 2 << 11)  # not enabled
    assert pci_host.read_data(host, 0, 4) == 0xFFFF_FFFF


def test_base_addresses_are_sized_and_moved() -> None:
    host = fresh()
    assert (get(host, 2, 0x10), get(host, 2, 0x14)) == (0xC201, MSIX_PAGE)
    for register in (0x10, 0x14):
        put(host, 2, register, 0xFFFF_FFFF)
    assert get(host, 2, 0x10) == 0xFF01 and -get(host, 2, 0x14) & 0xFFFF_FFFF == 4096
    put(host, 2, 0x10, 0xD380)
    assert pci_function.io_base(host.functions[2]) == 0xD300
    put(host, 2, 4, 0, 2)
    assert pci_function.io_base(host.functions[2]) == pci_function.memory_base(host.functions[2]) == 0


def test_capabilities_lead_to_the_structures() -> None:
    """As virtio_pci_modern of Linux walks them."""
    host = fresh()
    assert get(host, 2, 6, 2) & 0x10
    found, place = {}, get(host, 2, 0x34, 1)
    while place:
        if get(host, 2, place, 1) == 9:
            found[get(host, 2, place + 3, 1)] = (get(host, 2, place + 4, 1), get(host, 2, place + 8), get(host, 2, place + 12))
        else:
            assert (get(host, 2, place, 1), get(host, 2, place + 2, 2)) == (0x11, VECTORS - 1)
        place = get(host, 2, place + 1, 1)
    assert found == {1: (0, 0, 0x40), 3: (0, 0x40, 4), 4: (0, 0x80, 0x40), 2: (0, 0xC0, 0x40), 5: (0, 0, 0)}
    assert get(host, 2, 0x90) == 4


@given(st.lists(st.tuples(st.integers(0, 0xFFFF_FFFF), st.integers(0, 3), st.sampled_from((1, 2, 4)), st.integers(0, 0xFFFF_FFFF)), max_size=40))
def test_any_writes_leave_what_is_read_only(writes: list[tuple[int, int, int, int]]) -> None:
    host, untouched = fresh(), fresh()
    for address, offset, size, value in writes:
        pci_host.write_address(host, address | 0x8000_1000)
        pci_host.write_data(host, offset, size, value & (1 << 8 * size) - 1)
        assert 0 <= pci_host.read_data(host, offset, size) < 1 << 8 * size
    for slot in (0, 2):
        for number in range(64):
            fixed = ~pci_function.writable(untouched.functions[slot], number) if slot else ~0
            assert host.functions[slot].config[number] & fixed == untouched.functions[slot].config[number] & fixed


def test_messages_wait_while_masked() -> None:
    m = Msix()
    msix.reset(m)
    assert not msix.post(m, 3, masked=False) and msix.read(m, pci_function.MSIX_PENDING_OFFSET) == 8
    msix.write(m, 3 * 16 + 12, 0xFFFF_FFFE)  # unmask; the other bits do not exist
    assert msix.read(m, 3 * 16 + 12) == 0
    assert msix.take(m) == 3 and msix.take(m) == VECTORS and m.pending == 0
    assert msix.post(m, 3, masked=False) and not msix.post(m, 3, masked=True) and m.pending == 8
