"""A project whose test suite runs in three databases at once; PGPORT says where."""

import os

SECRET_KEY = "none"
USE_TZ = True
INSTALLED_APPS = ["shop"]
TEST_RUNNER = "shop.runner.Runner"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "postgres",
        "HOST": "127.0.0.1",
        "PORT": os.environ["PGPORT"],
        "OPTIONS": {"options": "-c sea_mq.context=orders"},
    }
}
