"""Loads grpc with two defaults of its core that suit a library, where the program's environment does not say otherwise.

The core reads these variables when it is loaded and never again, so the environment can be left as it was.
"""

from __future__ import annotations

import os
from importlib import import_module

_DEFAULTS = {
    # Else the core writes lines of level INFO to stderr, one for each handshake that fails.
    "GRPC_VERBOSITY": "ERROR",
    # Else the core's own fork handlers run in every process that the program forks, and crash one of four there while
    # grpc.aio is in use, before a line of Python runs. `_process` says what holds after a fork.
    "GRPC_ENABLE_FORK_SUPPORT": "0",
}

_missing = {name: value for name, value in _DEFAULTS.items() if name not in os.environ}
os.environ.update(_missing)
try:
    import_module("grpc")
finally:
    for _name in _missing:
        del os.environ[_name]
