"""The checks, in the order in which they run."""
from . import order, closing, pressure, readiness, receiving, sending, calls, options, lives
from .check import ALL

__all__ = ["ALL", "order", "closing", "pressure", "readiness", "receiving", "sending", "calls", "options", "lives"]
