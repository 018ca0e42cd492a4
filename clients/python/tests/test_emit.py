"""emit in the transaction of each library that has one."""

import asyncio
import os
from datetime import datetime, timedelta, timezone
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import psycopg
import pytest
import sqlalchemy
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

import sea_mq

URL = os.environ.get("SEA_MQ_TEST_DATABASE", "")
pytestmark = pytest.mark.skipif(not URL, reason="SEA_MQ_TEST_DATABASE is not set")
EVENT = ("order", 7, "OrderPaid", {"total": 1.5})


@pytest.fixture(autouse=True)
def context(sea_mq_database, monkeypatch):
    monkeypatch.setenv("PGOPTIONS", "-c sea_mq.context=orders")


def test_all_parameters_arrive(sea_mq_db, emitted):
    sea_mq_db.execute("SET sea_mq.context = 'orders'")
    event_id, later = uuid4(), datetime.now(timezone.utc) + timedelta(days=1)
    given = sea_mq.emit(
        sea_mq_db, "order", uuid4(), "OrderPaid", None, event_version=2, context="sales", event_id=event_id,
        correlation_id="corr", causation_id="cause", headers={"X-Tenant": "acme"}, visibility="public", available_at=later,
    )  # fmt: skip
    event = emitted()[0]
    assert given == event_id == event.id
    assert (event.subject, event.payload, event.headers) == ("sales.event.order_paid.v2", None, {"X-Tenant": "acme"})
    assert (event.correlation_id, event.causation_id, event.available_at) == ("corr", "cause", later)


def test_a_rolled_back_event_is_none(sea_mq_database):
    with psycopg.connect(sea_mq_database) as db:
        event_id = sea_mq.emit(db, *EVENT, context="orders")
        db.rollback()
        assert db.execute("SELECT count(*) FROM sea_mq.outbox_events WHERE id = %s", (event_id,)).fetchone() == (0,)


def test_cursors_and_row_factories(sea_mq_db, emitted):
    with sea_mq_db.cursor(row_factory=dict_row) as cursor:
        sea_mq.emit(cursor, *EVENT, context="orders")
    ids = sea_mq.emit_many(sea_mq_db, [{"aggregate_type": "order", "aggregate_id": n, "event_type": "OrderPaid", "payload": None, "context": "orders"} for n in (1, 2)])  # fmt: skip
    assert [event.id for event in emitted()][1:] == ids
    assert [event.aggregate_id for event in emitted()] == ["7", "1", "2"]


def test_sqlalchemy(sea_mq_database):
    engine = sqlalchemy.create_engine(sea_mq_database.replace("postgresql:", "postgresql+psycopg:"))
    pending = sqlalchemy.text("SELECT aggregate_id FROM sea_mq.pending_events()")
    with engine.connect() as connection:
        sea_mq.emit(connection, *EVENT, context="orders")
        assert connection.execute(pending).scalars().all() == ["7"]
    with Session(engine) as session:
        sea_mq.emit(session, *EVENT, context="orders")
        assert session.execute(pending).scalars().all() == ["7"]


def test_django(sea_mq_database):
    from django.conf import settings
    from django.db import connections, transaction

    url = urlsplit(sea_mq_database)
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": url.path[1:], "USER": url.username,
            "HOST": url.hostname, "PORT": url.port}}
    )  # fmt: skip
    db = connections["default"]
    with transaction.atomic():
        sea_mq.emit(db, *EVENT, context="orders")
        with db.cursor() as cursor:
            cursor.execute("SELECT aggregate_id FROM sea_mq.pending_events()")
            assert cursor.fetchall() == [("7",)]
        transaction.set_rollback(True)
    db.close()


def test_asynchronous_connections(sea_mq_database):
    async def run():
        sql = "SELECT aggregate_id FROM sea_mq.pending_events()"
        many = [{"aggregate_type": "order", "aggregate_id": 8, "event_type": "OrderPaid", "payload": 1, "context": "orders"}]
        db = await asyncpg.connect(sea_mq_database)
        async with db.transaction():
            await sea_mq.emit_async(db, *EVENT, context="orders")
            await sea_mq.emit_many_async(db, many)
            assert [row[0] for row in await db.fetch(sql)] == ["7", "8"]
        await db.close()
        async with await psycopg.AsyncConnection.connect(sea_mq_database) as db:
            await sea_mq.emit_async(db, *EVENT, context="orders")
            await sea_mq.emit_many_async(db, many)
            assert [row[0] for row in await (await db.execute(sql)).fetchall()] == ["7", "8"]
            await db.rollback()
        engine = create_async_engine(sea_mq_database.replace("postgresql:", "postgresql+psycopg:"))
        async with engine.connect() as connection:
            await sea_mq.emit_async(connection, *EVENT, context="orders")
            assert (await connection.execute(sqlalchemy.text(sql))).scalars().all() == ["7"]
        await engine.dispose()

    asyncio.run(run())


def test_what_is_no_json_is_refused(sea_mq_db):
    with pytest.raises(TypeError):
        sea_mq.emit(sea_mq_db, "order", 1, "OrderPaid", {"a": object()})
