"""Asks the daemons for a sign of life: ends with 0 when each has answered within the bound, else with 1 and a line for each that has not.

A daemon that hangs still listens, because the kernel takes connections for it. So Postfix and postscreen are asked for a
greeting, and Dovecot's master and its login service for an answer. What that leaves in the mail log is dropped by user-patches.sh.
None of it counts against the limits of mail clients: a flood of them is not a hang.
"""

import argparse
import smtplib
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

NO_SUCH_USER = 67  # sysexits.h; of an account that the last good set of passwords lacks
PROXY_HEADER = b"PROXY TCP4 127.0.0.1 127.0.0.1 1 1\r\n"


def greets(port: int, seconds: float, header: bytes = b"") -> None:
    """A first byte, whatever follows: `421` is a sign of life, too."""
    with socket.create_connection(("127.0.0.1", port), seconds) as connection:
        connection.sendall(header)
        if not connection.recv(1):
            raise OSError("closed the connection without a greeting")


def negotiates_tls(port: int, seconds: float) -> None:
    """STARTTLS with the certificate and key of every listener. Whether a client trusts them is not this server's question."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP("127.0.0.1", port, "localhost", seconds) as smtp:
        smtp.starttls(context=context)


def answers(seconds: float, *command: str) -> None:
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False)
    if result.returncode not in {0, NO_SUCH_USER}:
        raise OSError(" ".join(result.stderr.split()) or f"{' '.join(command)} ended with {result.returncode}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, fromfile_prefix_chars="@", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="bound for every answer; all are asked at once")
    parser.add_argument("--postfix", type=int, required=True, help="port of the Postfix service that user-patches.sh makes for this")
    parser.add_argument("--postscreen", type=int, required=True, help="its stock port")
    parser.add_argument("--postscreen-proxy", type=int, required=True, help="its port behind a PROXY header")
    parser.add_argument("--account", required=True, help="an account for Dovecot to look up")
    parser.add_argument("--tls", action="store_true", help="the certificate and key must fit, too")
    options = parser.parse_args()
    seconds, postfix = options.seconds, negotiates_tls if options.tls else greets
    checks: dict[str, Callable[[], None]] = {
        "postfix": lambda: postfix(options.postfix, seconds),
        "postscreen": lambda: greets(options.postscreen, seconds),
        "postscreen-proxy": lambda: greets(options.postscreen_proxy, seconds, PROXY_HEADER),
        "dovecot": lambda: answers(seconds, "doveadm", "service", "status", "imap-login"),
        "dovecot-auth": lambda: answers(seconds, "doveadm", "user", options.account),
    }
    failed = False
    with ThreadPoolExecutor(len(checks)) as pool:
        for name, answer in [(name, pool.submit(check)) for name, check in checks.items()]:
            try:
                answer.result()
            except (OSError, smtplib.SMTPException, subprocess.TimeoutExpired) as error:
                print(f"{name}: {error}", file=sys.stderr)
                failed = True
    return failed


if __name__ == "__main__":
    sys.exit(main())
