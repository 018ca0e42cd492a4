"""A worker for a subscription without a handler: the work and its completion are one transaction."""

from __future__ import annotations

import logging
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg import errors
from psycopg.rows import class_row

Connection = psycopg.Connection[Any]
log = logging.getLogger("sea_mq.worker")


@dataclass(frozen=True)
class Message:
    """A received message; the columns of sea_mq.receive."""

    id: int
    message_id: str
    source_context: str | None
    event_type: str
    event_version: int | None
    subject: str
    aggregate_type: str | None
    aggregate_id: str | None
    payload: Any
    headers: dict[str, str]
    correlation_id: str | None
    causation_id: str | None
    attempts: int
    created_at: datetime
    lease_until: datetime


class Reject(Exception):
    """Raise it in a handler: no further attempt can help. The message becomes a dead letter now."""


class Retry(Exception):
    """Raise it in a handler: try again after `seconds`. Any other exception means: try again after the subscription's delay."""

    def __init__(self, reason: str, seconds: float):
        super().__init__(reason)
        self.seconds = seconds


@dataclass
class Progress:
    """What a worker has done so far."""

    completed: int = 0
    failed: int = 0
    rejected: int = 0
    lost: int = 0
    """Messages whose lease had run out, and that somebody else has completed. Our work on them was undone."""
    started: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        rate = self.completed / max(time.monotonic() - self.started, 0.001)
        return f"{self.completed} completed ({rate:.1f}/s), {self.failed} failed, {self.rejected} rejected, {self.lost} lost"


class Worker:
    """Receives the messages of a subscription and hands each to `handle(db, message)`, in a transaction of `db` that also completes
    it. Run as many as you like, in threads and processes.

    A lost connection is made again, for ever. Leases are renewed while a batch is worked on. `stop()`, and SIGTERM and SIGINT where
    `run` is called with `signals=True`, end it after the messages that it has in hand.
    """

    def __init__(
        self,
        conninfo: str,
        subscription: str,
        handle: Callable[[Connection, Message], None],
        *,
        batch: int = 10,
        lease: float = 30,
        wait: float = 5,
        per_aggregate: bool = False,
        log_every: float = 60,
    ):
        self.conninfo, self.subscription, self.handle = conninfo, subscription, handle
        self.batch, self.lease, self.wait, self.per_aggregate = batch, lease, wait, per_aggregate
        self.log_every = log_every
        self.progress = Progress()
        self._stopping = threading.Event()
        self._in_hand: set[int] = set()

    def stop(self) -> None:
        """Ends `run` after the messages in hand. May be called from another thread, or a signal handler."""
        self._stopping.set()

    def run(self, *, signals: bool = False, idle: float | None = None) -> Progress:
        """Works until `stop`, or until nothing has come for `idle` seconds."""
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self.stop())
        log.info("%s: started", self.subscription)
        pause = 0.1
        while not self._stopping.is_set():
            try:
                with psycopg.connect(self.conninfo, autocommit=True) as db:
                    pause = 0.1
                    if not self._work(db, idle):
                        break
            except psycopg.OperationalError as error:
                log.warning("%s: no connection, again in %.1f s: %s", self.subscription, pause, error)
                self._stopping.wait(pause * random.uniform(0.5, 1))
                pause = min(pause * 2, 15)
        log.info("%s: ended: %s", self.subscription, self.progress)
        return self.progress

    def _work(self, db: Connection, idle: float | None) -> bool:
        """Returns whether there is more to do: False after `idle` seconds without a message."""
        last = logged = time.monotonic()
        while not self._stopping.is_set():
            messages = self._receive(db)
            with _Renewal(self.conninfo, self.lease, self._in_hand):
                for message in messages:
                    self._handle(db, message)
            now = time.monotonic()
            last = now if messages else last
            if now - logged >= self.log_every:
                logged = now
                log.info("%s: %s", self.subscription, self.progress)
            if idle is not None and now - last >= idle:
                return False
        return True

    def _receive(self, db: Connection) -> list[Message]:
        sql = """SELECT * FROM sea_mq.receive(%s, max => %s, lease => make_interval(secs => %s), wait => make_interval(secs => %s),
            per_aggregate => %s)"""
        with db.cursor(row_factory=class_row(Message)) as cursor:
            values = (self.subscription, self.batch, self.lease, self.wait, self.per_aggregate)
            messages = cursor.execute(sql, values).fetchall()
        self._in_hand.update(message.id for message in messages)
        return messages

    def _handle(self, db: Connection, message: Message) -> None:
        try:
            with db.transaction():
                # What is emitted in this transaction says where it comes from.
                names = ("sea_mq.correlation_id", message.correlation_id or "", "sea_mq.causation_id", message.message_id)
                db.execute("SELECT set_config(%s, %s, true), set_config(%s, %s, true)", names)
                self.handle(db, message)
                db.execute("SELECT sea_mq.complete(%s)", (message.id,))
            self.progress.completed += 1
        except Exception as error:  # noqa: BLE001
            # Ask the connection, not the error: a deadlock or a timeout is an OperationalError too, and the connection goes on.
            if db.closed:
                self._in_hand.clear()
                raise psycopg.OperationalError(str(error)) from error
            self._settle(db, message, error)
        finally:
            self._in_hand.discard(message.id)

    def _settle(self, db: Connection, message: Message, error: Exception) -> None:
        """Says what becomes of a message that could not be handled. Its work has been rolled back."""
        text = f"{type(error).__name__}: {error}"
        try:
            if isinstance(error, errors.ObjectNotInPrerequisiteState) and not self._is_ours(db, message):
                self.progress.lost += 1
            elif isinstance(error, Reject):
                db.execute("SELECT sea_mq.reject(%s, %s)", (message.id, str(error)))
                self.progress.rejected += 1
            else:
                seconds = error.seconds if isinstance(error, Retry) else None
                fail = "SELECT sea_mq.fail(%s, %s, retry_in => make_interval(secs => %s::float8))"
                db.execute(fail, (message.id, text, seconds))
                self.progress.failed += 1
        except errors.ObjectNotInPrerequisiteState:
            self.progress.lost += 1
        log.warning("%s: message %s, attempt %s: %s", self.subscription, message.message_id, message.attempts, text)

    def _is_ours(self, db: Connection, message: Message) -> bool:
        """Whether the message is still under way: a handler may raise 55000 for reasons of its own."""
        try:
            db.execute("SELECT sea_mq.extend_lease(%s, make_interval(secs => %s))", (message.id, self.lease))
        except errors.ObjectNotInPrerequisiteState:
            return False
        return True


class _Renewal:
    """Renews the leases of the messages in hand, on a connection of its own, from the time on when a third of a lease is over."""

    def __init__(self, conninfo: str, lease: float, in_hand: set[int]):
        self._conninfo, self._lease, self._in_hand = conninfo, lease, in_hand
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sea_mq lease", daemon=True)

    def __enter__(self) -> None:
        if self._in_hand:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(self._lease / 3):
            try:
                with psycopg.connect(self._conninfo, autocommit=True) as db:
                    # A message that is just being completed is locked, and needs no longer lease.
                    db.execute("SELECT set_config('lock_timeout', '500ms', false)")
                    self._renew(db)
            except psycopg.Error as error:
                log.warning("cannot renew leases: %s", error)

    def _renew(self, db: Connection) -> None:
        for message in tuple(self._in_hand):
            try:
                db.execute("SELECT sea_mq.extend_lease(%s, make_interval(secs => %s))", (message, self._lease))
            except (errors.ObjectNotInPrerequisiteState, errors.LockNotAvailable):
                continue
