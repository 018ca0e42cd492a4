"""Reads deliveries with the SDK of CloudEvents, unchanged. Each line of standard input is one: headers, body."""

import json
import sys

from cloudevents.core.bindings.http import HTTPMessage, from_http_event

for line in sys.stdin:
    one = json.loads(line)
    event = from_http_event(HTTPMessage(headers=one["headers"], body=one["body"].encode()))
    print(event.get_id(), event.get_type(), event.get_source(), event.get_subject(), json.dumps(event.get_data(), sort_keys=True))
