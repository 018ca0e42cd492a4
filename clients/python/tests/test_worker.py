"""The worker, against a real server: retries, dead letters, leases, a killed connection, a graceful stop."""

import os
import threading
import time

import psycopg
import pytest

import sea_mq
from sea_mq.testing import deliver

URL = os.environ.get("SEA_MQ_TEST_DATABASE", "")
pytestmark = pytest.mark.skipif(not URL, reason="SEA_MQ_TEST_DATABASE is not set")


@pytest.fixture
def subscription(sea_mq_database, request):
    """A subscription of the test's own, on a context of its own, and a function that emits numbers to it."""
    name = request.node.name.removeprefix("test_")[:40]
    with psycopg.connect(sea_mq_database, autocommit=True) as db:
        db.execute(f"SELECT sea_mq.subscribe('worker__{name}', '{name}', start_from => 'all', context => 'worker', retry_delay => '10 ms')")
        db.execute("CREATE TABLE IF NOT EXISTS effects (subscription text, n int, correlation text)")

        def emit(*numbers):
            for n in numbers:
                db.execute("SELECT sea_mq.emit('thing', %s, 'Counted', %s::jsonb, context => %s)", (n % 3, str(n), name))

        def effects():
            return [row[0] for row in db.execute("SELECT n FROM effects WHERE subscription = %s ORDER BY n", (f"worker__{name}",))]

        yield f"worker__{name}", emit, effects, db


def record(subscription):
    def handle(db, message):
        db.execute("INSERT INTO effects (subscription, n) VALUES (%s, %s)", (subscription, message.payload))

    return handle


def test_failures_are_retried_and_rejections_are_dead(sea_mq_database, subscription):
    name, emit, effects, db = subscription
    emit(1, 2, 3, 4, 5)
    seen = []

    def handle(connection, message):
        record(name)(connection, message)
        seen.append(message.payload)
        if message.payload == 2 and message.attempts == 1:
            raise ValueError("not now")
        if message.payload == 3:
            raise sea_mq.Reject("never")
        if message.payload == 4 and message.attempts == 1:
            raise sea_mq.Retry("soon", 0.05)
        if message.payload == 5 and message.attempts == 1:
            connection.execute("SELECT 1/0")

    worker = sea_mq.Worker(sea_mq_database, name, handle, wait=1)
    progress = worker.run(idle=2)
    assert effects() == [1, 2, 4, 5]
    assert (progress.completed, progress.failed, progress.rejected, progress.lost) == (4, 3, 1, 0)
    errors = db.execute("SELECT error FROM sea_mq.dlq_messages WHERE subscription = %s", (name,)).fetchall()
    assert errors == [("never",)]


def test_errors_like_a_lost_connection_s_are_retried(sea_mq_database, subscription):
    name, emit, effects, _ = subscription
    emit(1, 2)

    def handle(connection, message):
        record(name)(connection, message)
        if message.attempts == 1:
            connection.execute("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END $$")

    assert deliver(sea_mq_database, name, handle, idle=2) == 2
    assert effects() == [1, 2]


def test_a_killed_connection_is_made_again(sea_mq_database, subscription):
    name, emit, effects, db = subscription
    emit(1)

    def handle(connection, message):
        if message.attempts == 1:
            db.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        record(name)(connection, message)

    worker = sea_mq.Worker(sea_mq_database, name, handle, lease=1, wait=1)
    assert worker.run(idle=4).completed == 1
    assert effects() == [1]


def test_leases_are_renewed(sea_mq_database, subscription):
    name, emit, effects, db = subscription
    emit(1)

    def handle(connection, message):
        time.sleep(2.5)
        record(name)(connection, message)

    worker = sea_mq.Worker(sea_mq_database, name, handle, lease=1, wait=1)
    other = sea_mq.Worker(sea_mq_database, name, record(name), lease=1, wait=1)
    first = threading.Thread(target=worker.run, kwargs={"idle": 1})
    first.start()
    time.sleep(0.5)
    other.run(idle=3)
    first.join()
    assert (worker.progress.completed, other.progress.completed, effects()) == (1, 0, [1])
    attempts = "SELECT max(attempts) FROM sea_mq.inbox_messages WHERE subscription = %s"
    assert db.execute(attempts, (name,)).fetchone() == (1,)


def test_stop_ends_after_what_is_in_hand(sea_mq_database, subscription):
    name, emit, effects, db = subscription
    emit(*range(1, 9))
    # Otherwise the first batch may be a smaller one.
    while db.execute("SELECT count(*) FROM sea_mq.inbox_messages WHERE subscription = %s", (name,)).fetchone() != (8,):
        time.sleep(0.02)

    def handle(connection, message):
        record(name)(connection, message)
        if message.payload == 2:
            worker.stop()

    worker = sea_mq.Worker(sea_mq_database, name, handle, batch=3)
    worker.run()
    assert effects() == [1, 2, 3]
    # And a worker that waits ends with its wait.
    rest = sea_mq.Worker(sea_mq_database, name, record(name), wait=2)
    thread = threading.Thread(target=rest.run)
    thread.start()
    while len(effects()) < 8:
        time.sleep(0.05)
    rest.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_two_workers_and_order_of_aggregates(sea_mq_database, subscription):
    name, emit, effects, db = subscription
    emit(*range(1, 31))
    workers = [sea_mq.Worker(sea_mq_database, name, record(name), wait=1, per_aggregate=True) for _ in range(2)]
    threads = [threading.Thread(target=worker.run, kwargs={"idle": 2}) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert effects() == list(range(1, 31))
    late = "SELECT count(*) FROM (SELECT n < lag(n) OVER (PARTITION BY n %% 3 ORDER BY ctid) AS late FROM effects WHERE subscription = %s) e WHERE late"
    assert db.execute(late, (name,)).fetchone() == (0,)
