# docs:
from django.db import connections
from django.db.models.signals import post_migrate
from django.test.runner import DiscoverRunner


def test_mode(using, **_):
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT sea_mq.test_mode()")


class Runner(DiscoverRunner):  # TEST_RUNNER = "shop.runner.Runner"
    def setup_databases(self, **kwargs):
        post_migrate.connect(test_mode)
        return super().setup_databases(**kwargs)
# :docs
