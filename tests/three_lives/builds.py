"""What the tests of the three lives build."""
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
SAMPLE: Final = ["tests.three_lives.sample.scenario"]
