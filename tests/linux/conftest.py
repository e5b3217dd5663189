"""The fixture `stock`: a VM with a platform."""
from tests.linux.stock import stock

__all__ = ["stock"]
