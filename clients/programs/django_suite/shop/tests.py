"""Each class runs in a database of its own, a copy of the one that was migrated. The server's settings name a broker that nobody is to
reach."""

from django.db import connection
from django.test import TestCase, TransactionTestCase


def rows(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


class Pending(TestCase):
    def test_events_of_a_test_that_rolls_back(self):
        rows("SELECT sea_mq.emit('order', 1, 'OrderCreated', '{}')")
        self.assertEqual(rows("SELECT event_type FROM sea_mq.pending_events()"), [("order_created",)])


class Delivery:
    def test_what_is_committed_is_delivered_in_this_database(self):
        number = str(self.number)
        rows(f"SELECT sea_mq.subscribe('t{number}', 'orders', start_from => 'all', context => 'orders')")
        rows(f"SELECT sea_mq.emit('order', {number}, 'OrderCreated', '{{}}')")
        received = rows(f"SELECT aggregate_id FROM sea_mq.receive('t{number}', wait => '30 s')")
        self.assertEqual(received, [(number,)])
        self.assertEqual(rows("SELECT ok, relay FROM sea_mq.status"), [(True, "unconfigured")])


class First(Delivery, TransactionTestCase):
    number = 1


class Second(Delivery, TransactionTestCase):
    number = 2


class Third(Delivery, TransactionTestCase):
    number = 3
