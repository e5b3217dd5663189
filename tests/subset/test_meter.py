"""What is not Python stays small."""
import json
import subprocess
import sys

from toolchain import BUILD


def test_assembly_and_c_stay_below_the_aim() -> None:
    printed = subprocess.run([sys.executable, str(BUILD / "meter.py"), "--json"], capture_output=True, text=True, check=True).stdout
    counted = json.loads(printed)
    assert 0 < counted["native_total"] <= counted["aim"]
    assert counted["native_total"] == sum(counted["native"].values())
