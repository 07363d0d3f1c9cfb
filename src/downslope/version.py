"""The version of downslope."""

__version__ = "0.2.0"
