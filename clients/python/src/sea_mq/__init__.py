"""Helpers for sea_mq. Everything here is a thin layer over its SQL functions; docs/sql.md describes those."""

from .emitting import emit, emit_async, emit_many, emit_many_async
from .worker import Message, Progress, Reject, Retry, Worker

__all__ = [
    "Message",
    "Progress",
    "Reject",
    "Retry",
    "Worker",
    "emit",
    "emit_async",
    "emit_many",
    "emit_many_async",
]
