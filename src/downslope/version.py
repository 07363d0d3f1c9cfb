"""The version of downslope."""

__version__ = "0.1.0"
