"""The doctor's look at the webmail, with a real HTTPS server and a real name server (BIND) on loopback."""

import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from components.dns.zonefile import zone_text
from tests.doctor import not_well
from tests.tools.test_doctor_dns import needs_bind, serving
from tools.doctor import webmail
from tools.doctor.examine import examine
from tools.doctor.patient import Patient, UnreachedError, from_here
from tools.lab.certificates import Authority, server_context

pytestmark = needs_bind

HOST = "mail.viktorbarzin.me"
URL = f"https://{HOST}/"
PUBLIC = "192.0.2.20"
FORM = '<form><input name="_user" id="rcmloginuser"></form>'


@contextmanager
def page(status: int, headers: dict[str, str], body: str, certificate: tuple[str, str]) -> Iterator[tuple[int, list[str]]]:
    """The port of a server with one page, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.headers['Host']}{self.path}")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = server_context(*certificate).wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def door(site, tmp_path) -> Callable[..., tuple[dict[str, list[str]], list[str], list[str]]]:
    """What is not well, what the server was asked, and which addresses were tried; only `reached` answers."""
    authority = Authority()

    def look(status: int, headers: dict[str, str], body: str, *, auth: str, name: str = HOST, days: int = 2, reached: str = PUBLIC):
        changes: dict[str, Any] = {"webmail/auth": auth}
        if auth == "app":
            changes["webmail/ingress/auth_middleware"] = ...
        prod = site("prod", changes | {"doctor/internal_resolver": ...})
        zone = zone_text(prod.primary, [], 300, datetime(2026, 1, 1, tzinfo=UTC), []) + f"mail IN A {PUBLIC}\n"
        tried: list[str] = []
        with (
            serving(tmp_path, {prod.primary: zone}) as dns_port,
            page(status, headers, body, authority.issue(name, days=days)) as (server, asked),
        ):

            def connect(address: str, port: int, seconds: float):
                tried.append(f"{address} {port}")
                if address != reached:
                    raise UnreachedError(110, "timed out")
                return from_here("127.0.0.1", server, seconds)

            patient = Patient(
                prod,
                _none,
                _none,
                None,
                ("127.0.0.1",),
                dns_port=dns_port,
                connect=connect,
                tls=lambda: ssl.create_default_context(cadata=authority.certificate),
            )
            return not_well(examine(patient, [webmail.door], lambda check: None)), asked, tried

    return look


def _none(*_: str) -> subprocess.CompletedProcess[str]:
    raise AssertionError("the webmail is asked of no cluster")


def test_the_start_page_is_fetched_by_name_over_tls(door):
    assert door(200, {}, FORM, auth="app") == ({}, [f"{HOST}/"], [f"{PUBLIC} 443"])


def test_a_redirect_is_read_and_not_followed(door):
    found, asked, _ = door(302, {"Location": "https://login.example/?next=mail"}, "", auth="required")
    assert (found, asked) == ({}, [f"{HOST}/"])
    found, _, _ = door(302, {"Location": "https://login.example/?next=mail"}, "", auth="app")
    assert found == {"broken webmail.door": [f"{URL}: answers with 302 to login.example, without Roundcube's login form"]}


CERTIFICATES = {
    "for another name": ({"name": "other.example"}, "Hostname mismatch, certificate is not valid for 'mail.viktorbarzin.me'."),
    "that has ended": ({"days": -1}, "certificate has expired"),
}


@pytest.mark.parametrize("case", CERTIFICATES)
def test_a_certificate_that_browsers_refuse_is_broken(door, case):
    options, why = CERTIFICATES[case]
    found, asked, _ = door(200, {}, FORM, auth="app", **options)
    assert (found, asked) == ({"broken webmail.door": [f"{URL}: certificate: {why}"]}, [])


def test_an_address_out_of_reach_could_not_be_checked(door):
    found, _, _ = door(200, {}, FORM, auth="app", reached="nowhere")
    assert found == {"could not check webmail.door": [f": {URL}: {PUBLIC}: timed out"]}
