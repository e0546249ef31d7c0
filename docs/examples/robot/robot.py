#!/usr/bin/env python3
"""A robot behind Tidegate: checks that a request is Tidegate's, and answers each message.

    export ROBOT_SECRET=whsec_$(openssl rand -base64 24)
    python3 robot.py --port 9000

Needs nothing but Python 3.8 or later. What a robot does is in `answer`; the rest is what every webhook needs.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import sys
import time
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MINUTES_5 = 300
BODY_MAX = 16 * 1024 * 1024
SEEN_MAX = 100_000  # ids remembered: a message comes at least once


def answer(message):
    """What the robot says to a message; None: nothing."""
    if message["route"] == "robot/echo":
        return {"echo": message["data"], "to": message.get("user", "stranger")}
    if message["route"] == "robot/time":
        return {"time_ms": int(time.time() * 1000)}
    return {"error": "I know robot/echo and robot/time"}


def is_from_tidegate(headers, body, secret):
    """Standard Webhooks: HMAC-SHA256 over id.timestamp.body, and a timestamp that is not old."""
    name, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not stamp.isdigit() or abs(time.time() - int(stamp)) > MINUTES_5:
        return False
    key = base64.b64decode(secret[len("whsec_"):])
    signed = f"{name}.{stamp}.".encode() + body
    ours = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return any(hmac.compare_digest(ours, theirs) for theirs in headers.get("webhook-signature", "").split(" "))


class Robot(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body leave as one packet; in two, the second would wait for the first one's acknowledgement.
    wbufsize = -1
    secret = ""
    seen = OrderedDict()

    def do_POST(self):
        length = int(self.headers.get("content-length", 0))
        if length > BODY_MAX:
            return self.say(413, {"error": "too large"})
        body = self.rfile.read(length)
        if not is_from_tidegate(self.headers, body, self.secret):
            return self.say(401, {"error": "not signed by Tidegate"})
        replies = []
        for line in body.splitlines():
            message = json.loads(line)
            if message["kind"] != "message" or message["id"] in self.seen:
                continue
            said = answer(message)
            if said is not None:
                replies.append({"to_id": message["id"], "data": said})
            self.seen[message["id"]] = True
            if len(self.seen) > SEEN_MAX:
                self.seen.popitem(last=False)
        self.say(200, {"replies": replies})

    def say(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=9000, help="where to listen on 127.0.0.1; 0: any free port")
    port = parser.parse_args().port
    Robot.secret = os.environ.get("ROBOT_SECRET", "")
    if not Robot.secret.startswith("whsec_"):
        sys.exit("set ROBOT_SECRET to the sink's secret (whsec_…)")
    server = ThreadingHTTPServer(("127.0.0.1", port), Robot)
    print(f"robot at http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
