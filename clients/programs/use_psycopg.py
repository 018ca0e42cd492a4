"""psycopg 3."""

import os

import psycopg
from psycopg.types.json import Json, Jsonb

URL = os.environ["DATABASE_URL"]

with psycopg.connect(URL) as db:
    # docs:
    with db.transaction():
        db.execute("INSERT INTO orders (id) VALUES (%s)", (1,))
        db.execute("SELECT sea_mq.emit('order', %s, 'OrderCreated', %s)", (1, Jsonb({"n": 1})))
    # :docs

with psycopg.connect(URL) as db:
    db.execute("INSERT INTO orders (id) VALUES (2)")
    db.execute("SELECT sea_mq.emit('order', 2, 'OrderCreated', %s)", (Json({"n": 2}),))
    db.rollback()

    with db.transaction():
        db.execute("SELECT sea_mq.emit('order', %s, 'OrderCreated', %s)", ("3", '{"n": 3}'))
        with db.transaction(force_rollback=True):
            db.execute("SELECT sea_mq.emit('order', %s, 'OrderCreated', %s)", (4, Json({"n": 4})))

    insert = """INSERT INTO sea_mq.outbox_events (aggregate_type, aggregate_id, event_type, payload)
        VALUES ('order', %s, 'OrderCreated', %s) RETURNING id"""
    assert db.execute(insert, (5, Jsonb({"n": 5}))).fetchone()[0].version == 7
    events = [{"aggregate_type": "order", "aggregate_id": n, "event_type": "OrderCreated", "payload": {"n": n}} for n in (6, 7)]
    assert len(db.execute("SELECT sea_mq.emit_array(%s)", (Jsonb(events),)).fetchall()) == 2

left = 5
with psycopg.connect(URL, autocommit=True) as db:
    while left > 0:
        # docs:
        messages = db.execute("SELECT id, payload FROM sea_mq.receive('app__pull', wait => '5 s')").fetchall()
        for message, payload in messages:
            with db.transaction():
                db.execute("INSERT INTO parcels (order_id) VALUES (%s)", (payload["n"],))
                db.execute("SELECT sea_mq.complete(%s)", (message,))
        # :docs
        left -= len(messages)
