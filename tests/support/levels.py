"""The levels of the tests: which ones need neither a process nor a socket, and which are the whole thing.

`unit` is for values, tables, fakes and virtual time: `make test-unit`. `e2e` is a gateway as its users have it:
`make test-e2e`. What is in between (one side over a real socket) has no verb of its own; `make test` runs all.

A file belongs to a level by its place, so that a new one needs no mark. A test of the unit level that starts a process
or opens a connection fails, with a sentence that leads here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, Final

# Folders and files below tests/.
UNIT: Final = (
    "contract",
    "server/waves",
    "server/session",
    "server/rpc/convert",
    "server/rpc/test_auth.py",
    "server/rpc/test_status.py",
    "server/telemetry/test_encoding.py",
    "server/telemetry/test_lag.py",
    "server/telemetry/test_logs.py",
    "server/telemetry/test_metrics.py",
    "server/telemetry/test_names.py",
    "server/telemetry/test_otlp.py",
    "server/telemetry/test_session_labels.py",
    "server/telemetry/test_tracer.py",
    "server/test_config.py",
    "clients/python/test_audio.py",
    "clients/python/test_settings.py",
    "waves_local/test_codecs.py",
    "waves_local/test_deterministic.py",
    "waves_local/test_transcript.py",
    "waves_local_speech/test_text.py",
    "waves_local_speech/test_vad.py",
    "support/test_virtual_time.py",
    "test_promises.py",
)
# In a folder above, and yet over real sockets.
NOT_UNIT: Final = (
    "server/session/test_recognition.py",
    "server/session/test_transcription_local.py",
    "server/session/test_transport.py",
)
E2E: Final = (
    "e2e",
    "examples",
    "thirdparty",
    "tracing",
    "clients/python/test_real_gateway.py",
    "clients/test_languages.py",
    "clients/test_tasks.py",
    "conformance/test_clients.py",
)

# Need the toolchains of other languages, or proxies that no lock brings: `make test-polyglot`.
POLYGLOT: Final = ("clients/test_languages.py", "e2e/test_balancers.py")

# Audit events (PEP 578). What C libraries do by themselves, grpc above all, raises none.
_PROCESSES: Final = frozenset(("subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec"))
_SOCKETS: Final = frozenset(("socket.bind", "socket.connect"))


def level_of(path: PurePosixPath) -> str:
    """Return `unit`, `e2e` or "" for a test file, by its path below tests/."""
    if _is_in(path, UNIT) and not _is_in(path, NOT_UNIT):
        return "unit"
    return "e2e" if _is_in(path, E2E) else ""


def is_polyglot(path: PurePosixPath, client: str = "") -> bool:
    """Whether a test, of the client in that language where it names one, needs more than Python."""
    return _is_in(path, POLYGLOT) or client in ("go", "java", "typescript")


def _is_in(path: PurePosixPath, places: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(place) for place in places)


_watched: list[str] | None = None
"""Events of the test that is being watched; None where none is."""
_installed = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None:
        return
    # A socket pair, by which an event loop wakes itself, is never bound.
    if event in _PROCESSES or event in _SOCKETS:
        _watched.append(f"{event} {arguments[:2]!r}"[:120])


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collect what is started and opened while the block runs."""
    global _watched, _installed  # noqa: PLW0603 - an audit hook is this process's, and stays
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True
    _watched = found = []
    try:
        yield found
    finally:
        _watched = None
