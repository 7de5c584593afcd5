#!/usr/bin/env python3
"""A stand-in for cs-blocklist-mirror 0.0.5: CrowdSec's stream of decisions in, a list in plain text out. It takes the same configuration.

Its behaviour is that of cmd/root.go, pkg/registry, pkg/formatters and pkg/server: decisions by value, sorted, one a line; 404 and a
sentence without any, also before the first answer of the stream. A file of its own, because it runs where the real one would.
"""

import http.server
import json
import os
import re
import sys
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path


class Mirror(http.server.BaseHTTPRequestHandler):
    endpoint: str
    values: frozenset[str] = frozenset()

    def do_GET(self) -> None:
        if self.path != self.endpoint:
            self.send_error(404)
            return
        text = "".join(f"{value}\n" for value in sorted(self.values))
        self.send_response(200 if text else 404)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.end_headers()
        self.wfile.write((text or "no decisions available\n").encode())


def follow(url: str, key: str, scopes: list[str], seconds: float) -> None:
    startup = {"startup": "true"}
    while True:
        query = urllib.parse.urlencode(startup | {"scopes": ",".join(scopes)})
        request = urllib.request.Request(f"{url.rstrip('/')}/v1/decisions/stream?{query}", headers={"X-Api-Key": key})
        with urllib.request.urlopen(request, timeout=60) as answer:
            stream = json.load(answer)
        new, ended = ({decision["value"] for decision in stream[part] or ()} for part in ("new", "deleted"))
        Mirror.values = (Mirror.values | new) - ended
        startup = {}
        time.sleep(seconds)


if __name__ == "__main__":
    config = json.loads(re.sub(r"\$\{(\w+)\}", lambda name: os.environ[name[1]], Path(sys.argv[sys.argv.index("-c") + 1]).read_text()))
    crowdsec, (blocklist,) = config["crowdsec_config"], config["blocklists"]
    Mirror.endpoint = blocklist["endpoint"]
    host, _, port = config["listen_uri"].rpartition(":")
    threading.Thread(target=http.server.ThreadingHTTPServer((host, int(port)), Mirror).serve_forever, daemon=True).start()
    follow(crowdsec["lapi_url"], crowdsec["lapi_key"], crowdsec["scopes"], float(crowdsec["update_frequency"].removesuffix("s")))
