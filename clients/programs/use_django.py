"""Django 5 on psycopg 3: the view as an unmanaged model, and the functions by a cursor."""

import os
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.db import connection, models, transaction

url = urlsplit(os.environ["DATABASE_URL"])
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": url.path[1:],
            "USER": url.username,
            "HOST": url.hostname,
            "PORT": url.port,
        }
    }
)
django.setup()


class Order(models.Model):
    class Meta:
        app_label = "shop"
        managed = False
        db_table = "orders"


# docs:
class OutboxEvent(models.Model):
    id = models.UUIDField(primary_key=True, db_default=models.Value(None))
    aggregate_type = models.TextField()
    aggregate_id = models.TextField()
    event_type = models.TextField()
    payload = models.JSONField()

    class Meta:
        app_label = "shop"
        managed = False
        db_table = 'sea_mq"."outbox_events'
# :docs


def emit(number):
    with connection.cursor() as cursor:
        cursor.execute("SELECT sea_mq.emit('order', %s, 'OrderCreated', jsonb_build_object('n', %s::int))", [number, number])


# docs:
with transaction.atomic():
    Order.objects.create(id=1)
    with connection.cursor() as cursor:
        cursor.execute("SELECT sea_mq.emit('order', %s, 'OrderCreated', %s)", [1, '{"n": 1}'])
# :docs
try:
    with transaction.atomic():
        Order.objects.create(id=2)
        emit(2)
        raise LookupError
except LookupError:
    pass
with transaction.atomic():
    emit(3)
    savepoint = transaction.savepoint()
    emit(4)
    transaction.savepoint_rollback(savepoint)
event = OutboxEvent.objects.create(aggregate_type="order", aggregate_id="5", event_type="OrderCreated", payload={"n": 5})
assert event.id.version == 7
with transaction.atomic(), connection.cursor() as cursor:
    cursor.execute(
        """SELECT sea_mq.emit_array('[{"aggregate_type": "order", "aggregate_id": 6, "event_type": "OrderCreated", "payload": {"n": 6}},
            {"aggregate_type": "order", "aggregate_id": 7, "event_type": "OrderCreated", "payload": {"n": 7}}]')"""
    )

left = 5
while left > 0:
    # docs:
    with connection.cursor() as cursor:  # outside of atomic, each statement commits by itself
        cursor.execute("SELECT id, payload ->> 'n' FROM sea_mq.receive('app__pull', wait => '5 s')")
        messages = cursor.fetchall()
    for message, number in messages:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("INSERT INTO parcels (order_id) VALUES (%s)", [number])
            cursor.execute("SELECT sea_mq.complete(%s)", [message])
    # :docs
    left -= len(messages)
