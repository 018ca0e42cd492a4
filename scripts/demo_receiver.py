#!/usr/bin/env python3
"""demo_receiver.py SECRET: a server for one webhook. Prints its port; then what came, and whether its signature is good."""
import base64
import hashlib
import hmac
import http.server
import sys
import time

KEY = base64.b64decode(sys.argv[1].removeprefix("whsec_"))


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        said, at = self.headers["webhook-id"], self.headers["webhook-timestamp"]
        mac = hmac.new(KEY, f"{said}.{at}.".encode() + body, hashlib.sha256).digest()
        signatures = self.headers["webhook-signature"].split()
        made = "v1," + base64.b64encode(mac).decode()
        good = any(hmac.compare_digest(made, one) for one in signatures) and abs(time.time() - int(at)) < 300
        print(f"webhook-id: {said}\nbody: {body.decode()}\nsignature: {'verified' if good else 'WRONG'}", flush=True)
        self.send_response(200 if good else 400)
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
server.timeout = 30
print(server.server_port, flush=True)
server.handle_request()
