"""Fixtures of pytest, and the functions behind them. With the package installed, pytest finds the fixtures by itself.

Set SEA_MQ_TEST_DATABASE to the connection string of a database that the tests may use: one with the extension, or a role that may
create it. It is switched to test mode: nothing goes to a broker.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import class_row

from .worker import Message, Worker

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Event:
    """An event that the transaction will send if it commits; the columns of sea_mq.pending_events."""

    id: UUID
    context: str
    subject: str
    aggregate_type: str
    aggregate_id: str
    event_type: str
    event_version: int
    payload: Any
    headers: dict[str, str] | None
    created_at: datetime
    available_at: datetime | None
    correlation_id: str
    causation_id: str | None


def pending_events(db: Connection) -> list[Event]:
    """What the current transaction of `db` will send, in order."""
    with db.cursor(row_factory=class_row(Event)) as cursor:
        return cursor.execute("SELECT * FROM sea_mq.pending_events()").fetchall()


def deliver(conninfo: str, subscription: str, handle: Callable[[Connection, Message], None], idle: float = 1) -> int:
    """Hands what waits for a subscription to `handle`, until nothing has come for `idle` seconds. Returns how many were completed."""
    worker = Worker(conninfo, subscription, handle, wait=min(idle, 1))
    return worker.run(idle=idle).completed


@pytest.fixture(scope="session")
def sea_mq_database() -> str:
    """Connection string of the test database, in test mode."""
    conninfo = os.environ.get("SEA_MQ_TEST_DATABASE")
    if not conninfo:
        pytest.skip("SEA_MQ_TEST_DATABASE is not set")
    with psycopg.connect(conninfo, autocommit=True) as db:
        db.execute("CREATE EXTENSION IF NOT EXISTS sea_mq")
        db.execute("SELECT sea_mq.test_mode()")
    return conninfo


@pytest.fixture
def sea_mq_db(sea_mq_database: str) -> Iterator[Connection]:
    """A connection whose transaction is rolled back after the test."""
    with psycopg.connect(sea_mq_database) as db:
        try:
            yield db
        finally:
            db.rollback()


@pytest.fixture
def emitted(sea_mq_db: Connection) -> Callable[[], list[Event]]:
    """`emitted()` is the list of events that the transaction of `sea_mq_db` will send."""
    return lambda: pending_events(sea_mq_db)
