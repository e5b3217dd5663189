"""Random scripts of a guest at its ports, for tests of the whole platform."""
from hypothesis import strategies as st

KNOWN = [0x20, 0x21, 0xA0, 0xA1, 0x40, 0x41, 0x42, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0xF4, 0x4D0, 0x4D1, 0xCF8, 0xCF9, 0xCFC,
         *range(0x3F8, 0x400), *range(0x600, 0x60C)]

Step = tuple[str, int, int, int, int]
"""(read, write, advance or type; port; bytes; value; ns before it)"""

STEPS = st.lists(
    st.tuples(st.sampled_from("rwwat"), st.one_of(st.sampled_from(KNOWN), st.integers(0, 0xFFFF)), st.sampled_from([1, 1, 2, 4]),
              st.one_of(st.integers(0, 0xFFFFFFFF), st.integers(0, 255)), st.one_of(st.integers(0, 10**10), st.integers(0, 10**6))),
    max_size=80)
