"""What a build decides. The values here hold under CPython; `build/make_image.py` overrides them."""
from typing import Final

DEBUG: Final[bool] = True
MEASURE_PATHS: Final[bool] = False
