"""What the doctor can see from a pod only: the stock ports as programs of the cluster find them, and the volumes of the backups.

Prints a JSON list for each thing seen: check, verdict, what it is about, text. Sends nothing and leaves nothing behind.
"""

import argparse
import json
import os
import re
import smtplib
import socket
import ssl
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

TIMEOUT = 15
HELO = "doctor.invalid"
LOW = 0.05  # of a volume's size
NOT_AUTHORISED = re.compile(rb"[45]\.7\.1 ")  # RFC 3463, section 3.8

Seen = tuple[str, str, str, str]


class Smtp(smtplib.SMTP):
    """A session at one address, whose certificate is for another name: the public one."""

    def __init__(self, address: str, port: int, name: str, *, implicit: bool) -> None:
        self._implicit, self._name = implicit, name
        super().__init__(local_hostname=HELO, timeout=TIMEOUT)
        self.connect(address, port)
        self._host = name

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        plain = socket.create_connection((host, port), timeout)
        return ssl.create_default_context().wrap_socket(plain, server_hostname=self._name) if self._implicit else plain


def services(options: argparse.Namespace) -> Iterator[Seen]:
    for service, port, tls in (entry.split(":") for entry in options.service):
        about = f"{service} {options.address}:{port}"
        try:
            look = imap if service == "imaps" else smtp
            yield from look(options, about, int(port), tls)
        except ssl.SSLCertVerificationError as error:
            yield "services", "broken", about, f"certificate: {error.verify_message}"
        except (OSError, smtplib.SMTPException) as error:
            yield "services", "broken", about, f"{type(error).__name__}: {error}"


def imap(options: argparse.Namespace, about: str, port: int, _tls: str) -> Iterator[Seen]:
    with (
        socket.create_connection((options.address, port), TIMEOUT) as plain,
        ssl.create_default_context().wrap_socket(plain, server_hostname=options.name) as secure,
    ):
        line = secure.makefile("rb").readline(1024)
    greets = line.startswith(b"* OK")
    yield "services", "ok" if greets else "broken", about, "greets" if greets else f"greets with {line[:60]!r}"


def smtp(options: argparse.Namespace, about: str, port: int, tls: str) -> Iterator[Seen]:
    with Smtp(options.address, port, options.name, implicit=tls == "implicit") as session:
        if tls == "starttls":
            session.ehlo()
            if session.has_extn("auth"):
                yield "log-in-without-tls", "broken", about, "offers AUTH before TLS"
            session.starttls(context=ssl.create_default_context())
        session.ehlo()
        yield "services", "ok", about, "greets, with a certificate that verifies"
        verdict, text = relaying(session)
        yield "open-relay", verdict, about, text


def relaying(session: smtplib.SMTP) -> tuple[str, str]:
    """Verdict and text on a recipient elsewhere, after EHLO and without a log-in; nothing is sent."""
    session.mail("")  # as a bounce: a refusal of one sender would say nothing about others
    code, said = session.rcpt("doctor@other.invalid")
    text = f"{code} {said.decode('ascii', 'replace')}"[:120]
    if code < 400:
        return "broken", f"accepts a recipient elsewhere: {text}"
    if NOT_AUTHORISED.match(said):
        return "ok", f"refuses: {text}"
    return "could not check", f"refuses, but for another reason than relaying: {text}"


def volumes(options: argparse.Namespace) -> Iterator[Seen]:
    for folder in options.volume:
        if not os.path.ismount(folder):
            yield "export", "broken", str(folder), "is not mounted"
            continue
        try:
            with tempfile.TemporaryFile(dir=folder) as file:  # without a name, or unlinked at once
                file.write(b"doctor")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            yield "export", "broken", str(folder), f"cannot be written to: {error.strerror}"
            continue
        space = os.statvfs(folder)
        free, size = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
        yield "export", "degraded" if free < LOW * size else "ok", str(folder), f"writable, {free >> 20} MiB free of {size >> 20}"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", required=True, help="where pods reach the stock ports")
    parser.add_argument("--name", required=True, help="the name in the certificate")
    parser.add_argument("--service", action="append", default=[], metavar="NAME:PORT:TLS")
    parser.add_argument("--volume", action="append", default=[], type=Path, help="where the volume of a backup is mounted")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse()
    for look in (services, volumes):
        for seen in look(options):
            print(json.dumps(seen), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
