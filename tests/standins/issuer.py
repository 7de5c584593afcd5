"""A stand-in for an issuer of tokens: its introspection endpoint (RFC 7662) with a client's password (RFC 6749, section 2.3.1)."""

import base64
import contextlib
import http.server
import json
import threading
import urllib.parse
from typing import Any

from tools.lab.certificates import server_context

PATH = "/introspect"


class Issuer:
    """Answers at an address of the network that it is made in, until it is closed. `tokens` are those that are valid, with their claims.

    A test may change the `client` that may ask, the `context` of TLS, and whether it `answers`.
    """

    def __init__(self, address: str, certificate: tuple[str, str], client: tuple[str, str]) -> None:
        self.tokens: dict[str, dict[str, Any]] = {}
        self.client = client
        self.context = server_context(*certificate)
        self.asked, self.answers = threading.Event(), threading.Event()
        self.answers.set()

        class Endpoint(http.server.BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805
                form = urllib.parse.parse_qs(handler.rfile.read(int(handler.headers["Content-Length"])).decode(), keep_blank_values=True)
                self.asked.set()
                self.answers.wait()
                status, answer = self._answer(handler.path, handler.headers.get("Authorization"), form)
                body = json.dumps(answer).encode()
                handler.send_response(status)
                handler.send_header("Content-Type", "application/json")
                handler.send_header("Content-Length", str(len(body)))
                handler.end_headers()
                with contextlib.suppress(OSError):  # the other side did not wait
                    handler.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((address, 443), Endpoint)
        first = server_context(*certificate)
        first.sni_callback = lambda connection, _name, _context: setattr(connection, "context", self.context)
        self._server.socket = first.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, path: str, authorization: str | None, form: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        if path != PATH or "token" not in form:
            return 400, {"error": "invalid_request"}
        given = ["", ""]
        if authorization and authorization.startswith("Basic "):
            given = [urllib.parse.unquote_plus(part) for part in base64.b64decode(authorization[6:]).decode().split(":", 1)]
        # As Keycloak does: what the form says counts, even where it says nothing.
        given = [form.get(name, [part])[0] for name, part in zip(("client_id", "client_secret"), given, strict=True)]
        if tuple(given) != self.client:
            return 401, {"error": "invalid_client"}
        claims = self.tokens.get(form["token"][0])
        return 200, {"active": False} if claims is None else {"active": True} | claims

    def close(self) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()
