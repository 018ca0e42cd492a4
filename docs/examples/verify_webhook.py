"""Verifies webhooks with the library of Standard Webhooks, unchanged. Each line of standard input is one: secret, headers, body."""

import json
import sys

from standardwebhooks import Webhook

verified = 0
for line in sys.stdin:
    one = json.loads(line)
    # docs:
    event = Webhook(one["secret"]).verify(one["body"], one["headers"])
    # :docs
    assert event["type"] and event["timestamp"] and "data" in event, event
    verified += 1
print(verified)
