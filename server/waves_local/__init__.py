"""A Waves-compatible speech service for development and tests: `waves-local`, or `serve()` as a library."""

from waves_local.deterministic import deterministic_engine, speak, spoken
from waves_local.engine import Engine
from waves_local.faults import Fault, Faults
from waves_local.journal import ConnectionRecord, Journal, ReceivedMessage
from waves_local.options import Options
from waves_local.server import serve
from waves_local.upstream import Upstream

__all__ = [
    "ConnectionRecord",
    "Engine",
    "Fault",
    "Faults",
    "Journal",
    "Options",
    "ReceivedMessage",
    "Upstream",
    "deterministic_engine",
    "serve",
    "speak",
    "spoken",
]
