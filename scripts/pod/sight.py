"""What a client from outside would see of the mail services at their public names, as far as that can be seen from inside."""

import errno
import socket
import ssl
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import BinaryIO

from common import Metrics, ProblemError

# What connect() says where this pod has no address of a family at all: nothing is known of the service then.
BLIND = {errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}


@dataclass
class Seen:
    """What one service shows to a client that comes by one address family; `blind`: it cannot be seen from here."""

    up: bool = False
    secure: bool = False
    days_left: float | None = None
    detail: str = ""
    blind: bool = False


def look_at_edge(name: str, port: int, starttls: bool, family: socket.AddressFamily, timeout: float) -> Seen:
    """Connect as a client would."""
    seen = Seen()
    try:
        address = socket.getaddrinfo(name, port, family, socket.SOCK_STREAM)[0][4]
        with socket.socket(family, socket.SOCK_STREAM) as plain:
            plain.settimeout(timeout)
            plain.connect(address)
            if starttls:
                stream = plain.makefile("rb")
                _reply(stream)
                seen.up = True
                for command in (b"EHLO probe.invalid", b"STARTTLS"):
                    plain.sendall(command + b"\r\n")
                    _reply(stream)
            with ssl.create_default_context().wrap_socket(plain, server_hostname=name) as tls:
                certificate = tls.getpeercert() or {}
                seen.days_left = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / 86400
                seen.secure = True
                seen.up = seen.up or tls.recv(4) == b"* OK" or not starttls
    except ssl.SSLCertVerificationError as error:
        seen.up = True  # it answers; a certificate is a fault of another kind
        seen.detail = error.verify_message
        seen.days_left = 0.0 if error.verify_code == 10 else None  # X509_V_ERR_CERT_HAS_EXPIRED
    except (OSError, ProblemError) as error:
        seen.blind = isinstance(error, OSError) and error.errno in BLIND
        seen.detail = str(error) if isinstance(error, ProblemError) else type(error).__name__
    return seen


def _reply(stream: BinaryIO) -> bytes:
    """A whole SMTP reply; postscreen sends its first line at once and the last one after its greeting test."""
    lines = []
    while line := stream.readline(2048):
        lines.append(line)
        if line[3:4] != b"-":
            break
    if not lines or lines[-1][:1] not in {b"2"}:
        raise ProblemError("no greeting" if not lines else f"answers {lines[-1][:3].decode('ascii', 'replace')}")
    return b"".join(lines)


def edge_metrics(metrics: Metrics, sights: dict[tuple[str, str, str], Future[Seen]]) -> None:
    """By service, host and family. What cannot be seen from here has no sample but in `email_edge_visible`."""
    for (service, host, family), future in sights.items():
        seen, labels = future.result(), {"service": service, "host": host, "family": family, "seen_from": "inside"}
        metrics.set("email_edge_visible", not seen.blind, "Whether this pod has an address of the family, so that it can look", **labels)
        if seen.blind:
            print(f"edge {service} {host} {family}: cannot be seen from here, this pod has no {family} address")
            continue
        metrics.set("email_edge_up", seen.up, "Whether the service greets a client at the public name", **labels)
        metrics.set("email_edge_tls", seen.secure, "Whether TLS with a valid certificate was established", **labels)
        if seen.days_left is not None:
            metrics.set("email_edge_certificate_days", seen.days_left, "Days until the served certificate expires", **labels)
        print(f"edge {service} {host} {family}: {'ok' if seen.up and seen.secure else seen.detail or 'no greeting'}")
