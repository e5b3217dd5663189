"""XCR0 values: whatever a guest asks for, XSETBV in the hypervisor never meets one that the CPU refuses."""
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.arch_x86 import extended_state
from hypervisor.arch_x86.cpu_features import features
from hypervisor.arch_x86.defs.cr import XCR0_AVX, XCR0_AVX512, XCR0_BNDCSR, XCR0_BNDREGS, XCR0_PKRU, XCR0_SSE, XCR0_X87

AMX = 3 << 17
AVX = XCR0_X87 | XCR0_SSE | XCR0_AVX
MPX = XCR0_BNDREGS | XCR0_BNDCSR
ALL = AVX | MPX | XCR0_AVX512 | XCR0_PKRU | AMX


@pytest.fixture(autouse=True)
def cpu() -> Iterator[None]:
    before = features.xcr0_mask
    features.xcr0_mask = ALL
    yield
    features.xcr0_mask = before


def cpu_takes(xcr0: int) -> bool:
    """What XSETBV takes on a CPU with all of ALL (SDM vol. 1, 13.3)."""
    whole = all(xcr0 & group in (0, group) for group in (MPX, XCR0_AVX512, AMX))
    avx = xcr0 & XCR0_AVX == 0 or xcr0 & XCR0_SSE != 0
    avx512 = xcr0 & XCR0_AVX512 == 0 or xcr0 & XCR0_AVX != 0
    return xcr0 & ~ALL == 0 and xcr0 & XCR0_X87 != 0 and whole and avx and avx512


@given(st.one_of(st.integers(0, ALL), st.integers(0, (1 << 64) - 1)))
def test_what_is_allowed_the_cpu_takes(xcr0: int) -> None:
    if extended_state.allowed(xcr0):
        assert cpu_takes(xcr0)
        assert xcr0 & AMX == 0  # its tiles have no room in a vCPU's area


@pytest.mark.parametrize("xcr0", [XCR0_X87, AVX, AVX | MPX, AVX | XCR0_AVX512 | XCR0_PKRU])
def test_what_systems_set_is_allowed(xcr0: int) -> None:
    assert extended_state.allowed(xcr0)


@pytest.mark.parametrize("xcr0", [0, XCR0_SSE, AVX | XCR0_BNDREGS, AVX | XCR0_BNDCSR, XCR0_X87 | XCR0_AVX, AVX | AMX, AVX | 1 << 63])
def test_what_no_cpu_takes_is_refused(xcr0: int) -> None:
    assert not extended_state.allowed(xcr0)
