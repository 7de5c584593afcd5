"""The webmail: its pod, and what someone without a login finds at its public name."""

import http.client
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from components.names import WEBMAIL
from components.webmail.image import LOGIN_FIELD
from tools.doctor.check import Area, BlindError, Seen, broken, degraded, ok
from tools.doctor.cluster import rolled_out
from tools.doctor.dns import ask, resolver
from tools.doctor.patient import Patient, UnreachedError

AREA = Area("webmail", "Roundcube, and what is in front of it")
SECONDS = 15
BYTES = 256 << 10


@AREA.check(
    "server",
    expects="one pod of the declared image is ready",
    remedy="`kubectl describe deployment roundcubemail`, and the pod's own log",
    page="webmail.md",
)
def server(patient: Patient) -> Iterator[Seen]:
    """Roundcube's Deployment has rolled out, and runs the image that the settings name."""
    if patient.site.webmail:
        yield from rolled_out(patient, WEBMAIL, patient.site.webmail.image)


@AREA.check(
    "door",
    expects="without a login the page is what webmail.auth says",
    remedy="`kubectl describe ingress`: its class, its middlewares in their order; then the login in front of it",
    page="webmail.md",
)
def door(patient: Patient) -> Iterator[Seen]:
    """The start page over HTTPS without any cookie: Roundcube's login form, or with `auth: required` another login before it."""
    webmail = patient.site.webmail
    if webmail is None:
        return
    url = f"https://{webmail.host}/"
    try:
        status, location, body = _get(patient, webmail.host)
    except ssl.SSLCertVerificationError as error:
        yield broken(url, f"certificate: {error.verify_message}")
        return
    except (OSError, http.client.HTTPException) as error:
        yield broken(url, f"{type(error).__name__}: {error}")
        return
    if status >= 500:
        yield broken(url, f"answers with {status}")
    elif webmail.auth == "required":
        if LOGIN_FIELD in body:
            yield broken(url, "shows Roundcube's login form to everyone, and webmail.auth is required")
        elif status in {401, 403} or (300 <= status < 400 and location):
            yield ok(url, f"asks for the cluster's login ({status})")
        else:
            yield degraded(url, f"answers with {status}, which is neither a login nor a redirect to one")
    elif LOGIN_FIELD in body:
        yield ok(url, "shows Roundcube's login form")
    else:
        yield broken(url, f"answers with {status}{f' to {urlsplit(location).netloc}' if location else ''}, without Roundcube's login form")


def _get(patient: Patient, host: str) -> tuple[int, str, str]:
    """Status, Location and text. Raises BlindError where no address is in reach from here, OSError for bad TLS."""
    server = resolver(patient, patient.resolvers[0])
    addresses = sorted(ask(server, host, "A")) or sorted(ask(server, host, "AAAA"))
    inside = patient.site.doctor.internal_resolver
    if inside and not patient.outside:
        addresses = sorted(ask(resolver(patient, str(inside)), host, "A")) + addresses
    why = "the name has no address"
    for address in addresses:
        try:
            plain = patient.connect(address, 443, SECONDS)
        except UnreachedError as error:
            why = f"{address}: {error}"
            continue
        return _ask(plain, host, patient.tls())
    raise BlindError(f"https://{host}/: {why}")


def _ask(plain: socket.socket, host: str, tls: ssl.SSLContext) -> tuple[int, str, str]:
    connection = http.client.HTTPSConnection(host, timeout=SECONDS)
    connection.sock = tls.wrap_socket(plain, server_hostname=host)
    with connection.sock:
        connection.request("GET", "/", headers={"User-Agent": "doctor"})
        response = connection.getresponse()
        return response.status, response.getheader("Location") or "", response.read(BYTES).decode("utf-8", "replace")
