"""The gateway: gRPC speech streams in front of the Smallest AI Waves WebSockets."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("wavegate")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
