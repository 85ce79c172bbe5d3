"""The version of tlpipe, as installed."""

from importlib.metadata import version

__version__ = version("tlpipe")
