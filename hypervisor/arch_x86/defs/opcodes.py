"""Opcode maps: what follows each opcode (Intel SDM vol. 2D appendix A, AMD APM vol. 3 appendix A).

An entry is the kind of immediate, with HAS_MODRM, NOT_IN_64 and UNDEFINED. Prefixes and escapes are UNDEFINED here: they
are dealt with before a map is looked at.
"""
from typing import Annotated, Final

from hypervisor.lang import u8

HAS_MODRM: Final = 0x10
NOT_IN_64: Final = 0x20
UNDEFINED: Final = 0x40
IMMEDIATE: Final = 0x0F

IMM_NONE: Final = 0
IMM_8: Final = 1
IMM_16: Final = 2
IMM_Z: Final = 3  # 16 or 32 bits
IMM_V: Final = 4  # 16, 32 or 64 bits
IMM_16_8: Final = 5  # ENTER
IMM_OFFSET: Final = 6  # as wide as an address
IMM_FAR: Final = 7  # offset and selector
IMM_BRANCH: Final = 8  # as IMM_Z, but 32 bits in 64-bit code
IMM_8_IF_TEST: Final = 9  # group 3: only TEST has one
IMM_Z_IF_TEST: Final = 10

N: Final = IMM_NONE
B: Final = IMM_8
W: Final = IMM_16
Z: Final = IMM_Z
V: Final = IMM_V
E: Final = IMM_16_8
O: Final = IMM_OFFSET
J: Final = IMM_BRANCH
M: Final = HAS_MODRM
MB: Final = HAS_MODRM | IMM_8
MZ: Final = HAS_MODRM | IMM_Z
T: Final = HAS_MODRM | IMM_8_IF_TEST
TZ: Final = HAS_MODRM | IMM_Z_IF_TEST
N6: Final = NOT_IN_64
B6: Final = NOT_IN_64 | IMM_8
F6: Final = NOT_IN_64 | IMM_FAR
M6: Final = NOT_IN_64 | HAS_MODRM
MB6: Final = NOT_IN_64 | HAS_MODRM | IMM_8
X: Final = UNDEFINED

ONE_BYTE: Final[Annotated[list[u8], 256]] = [
    M, M, M, M, B, Z, N6, N6, M, M, M, M, B, Z, N6, X,  # 00
    M, M, M, M, B, Z, N6, N6, M, M, M, M, B, Z, N6, N6,  # 10
    M, M, M, M, B, Z, X, N6, M, M, M, M, B, Z, X, N6,  # 20
    M, M, M, M, B, Z, X, N6, M, M, M, M, B, Z, X, N6,  # 30
    N, N, N, N, N, N, N, N, N, N, N, N, N, N, N, N,  # 40
    N, N, N, N, N, N, N, N, N, N, N, N, N, N, N, N,  # 50
    N6, N6, M6, M, X, X, X, X, Z, MZ, B, MB, N, N, N, N,  # 60
    B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B,  # 70
    MB, MZ, MB6, MB, M, M, M, M, M, M, M, M, M, M, M, M,  # 80
    N, N, N, N, N, N, N, N, N, N, F6, N, N, N, N, N,  # 90
    O, O, O, O, N, N, N, N, B, Z, N, N, N, N, N, N,  # A0
    B, B, B, B, B, B, B, B, V, V, V, V, V, V, V, V,  # B0
    MB, MB, W, N, M6, M6, MB, MZ, E, N, W, N, N, B, N6, N,  # C0
    M, M, M, M, B6, B6, N6, N, M, M, M, M, M, M, M, M,  # D0
    B, B, B, B, B, B, B, B, J, J, F6, B, N, N, N, N,  # E0
    X, N, X, X, N, N, T, TZ, N, N, N, N, N, N, M, M]  # F0

TWO_BYTE: Final[Annotated[list[u8], 256]] = [
    M, M, M, M, X, N, N, N, N, N, X, N, X, M, N, MB,  # 00; 0F is 3DNow!, its opcode stands as an immediate
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,  # 10
    M, M, M, M, X, X, X, X, M, M, M, M, M, M, M, M,  # 20
    N, N, N, N, N, N, X, N, X, X, X, X, X, X, X, X,  # 30
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,  # 40
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,  # 50
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,  # 60
    MB, MB, MB, MB, M, M, M, N, M, M, X, X, M, M, M, M,  # 70
    J, J, J, J, J, J, J, J, J, J, J, J, J, J, J, J,  # 80
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,  # 90
    N, N, N, M, MB, M, M, M, N, N, N, M, MB, M, M, M,  # A0
    M, M, M, M, M, M, M, M, M, M, MB, M, M, M, M, M,  # B0
    M, M, MB, M, MB, MB, MB, M, N, N, N, N, N, N, N, N,  # C0
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,  # D0
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,  # E0
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M]  # F0
