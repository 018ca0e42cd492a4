#!/usr/bin/env python3
"""Handles the messages of a subscription that has no handler: the work and its completion are one transaction.

    DATABASE_URL=postgresql://shipping_app@localhost/shipping python3 pull.py SUBSCRIPTION [IDLE_SECONDS]

You may leave out DATABASE_URL if PGHOST, PGDATABASE and so on are set. You may run any number of these programs at once. A
program ends when nothing has come for IDLE_SECONDS (default: never). Needs psycopg 3. In the database, once:

    CREATE TABLE parcels (order_id text, message_id text);
    SELECT sea_mq.subscribe('shipping__orders', 'orders');    -- no handler
    GRANT sea_mq_consumer TO shipping_app;
"""

import os
import sys
import time

import psycopg
from psycopg import errors
from psycopg.rows import dict_row


class Hopeless(Exception):
    """No further attempt can help."""


def pack(db, message):
    """The work. If it raises, its changes in the database are undone."""
    if "order" not in message["payload"]:
        raise Hopeless("the event names no order")
    db.execute(
        "INSERT INTO parcels (order_id, message_id) VALUES (%s, %s)",
        (message["payload"]["order"], message["message_id"]),
    )


def handle(db, message):
    try:
        with db.transaction():
            # Events that are emitted in this transaction say where they come from, as in a handler.
            db.execute("SELECT set_config('sea_mq.correlation_id', %s, true)", (message["correlation_id"],))
            db.execute("SELECT set_config('sea_mq.causation_id', %s, true)", (message["message_id"],))
            pack(db, message)
            db.execute("SELECT sea_mq.complete(%s)", (message["id"],))
    except errors.ObjectNotInPrerequisiteState:
        pass  # Our lease had run out, and another client has completed the message. Our work was undone.
    except Hopeless as error:
        give_up(db, "SELECT sea_mq.reject(%s, %s)", message, error)
    except Exception as error:  # noqa: BLE001
        # Ask the connection, not the error: a deadlock or a timeout is an OperationalError too, and the connection goes on.
        if db.closed:
            raise  # The lease runs out, and another client gets the message.
        give_up(db, "SELECT sea_mq.fail(%s, %s)", message, error)


def give_up(db, statement, message, error):
    print(f"message {message['message_id']}: {error}", file=sys.stderr)
    try:
        db.execute(statement, (message["id"], str(error)))
    except errors.ObjectNotInPrerequisiteState:
        pass  # As above.


def main(subscription, idle=float("inf")):
    # Each statement outside `transaction` commits by itself, so received messages are ours at once.
    with psycopg.connect(os.environ.get("DATABASE_URL", ""), autocommit=True, row_factory=dict_row) as db:
        last = time.monotonic()
        while time.monotonic() - last < idle:
            received = "SELECT * FROM sea_mq.receive(%s, max => 10, lease => '30 s', wait => '1 s')"
            for message in db.execute(received, (subscription,)).fetchall():
                handle(db, message)
                last = time.monotonic()


if __name__ == "__main__":
    main(sys.argv[1], *map(float, sys.argv[2:3]))
