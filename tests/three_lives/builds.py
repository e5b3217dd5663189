"""What the tests of the three lives build."""
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
DEVICES: Final = [f"hypervisor.devices.{name}" for name in ("pic8259", "pit8254", "rtc_mc146818", "uart16550")]
MODULES: Final = ["tests.three_lives.sample.scenario", *DEVICES]
