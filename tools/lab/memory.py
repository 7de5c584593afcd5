"""What the pod's processes take, and what two of the largest messages at once make of it."""

import contextlib
import secrets
import threading
import time

from components.errors import UserError
from components.listeners import SMTP
from components.settings.quantity import in_bytes
from tools.lab.client import Client
from tools.lab.edge import Lab
from tools.lab.hosts import slowness
from tools.lab.paths import CLIENT_DOMAIN

HEADERS = 4096  # bytes that the server adds; they count too
SECONDS = 300  # of an idle machine, for its answer to a message


def pod_memory(lab: Lab) -> int:
    """Bytes of all processes, a shared page in shares (Pss). A cgroup would count the lab's disks too, for these are in memory."""
    total = 0
    for process in lab.pod.host.path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            rows = (process / "smaps_rollup").read_text().splitlines()
            total += sum(int(row.split()[1]) << 10 for row in rows if row.startswith("Pss:"))
    return total


def peak_of_two(lab: Lab) -> int:
    """The most that the pod takes from when it is given two of the largest messages at once until it has delivered them."""
    mailbox, sender = next(iter(lab.site.mail.mailboxes)), f"friend@{CLIENT_DOMAIN}"
    line = secrets.token_hex(38).encode() + b"\r\n"
    head = f"From: {sender}\r\nTo: {mailbox}\r\nSubject: large\r\n\r\n".encode()
    text = head + line * ((in_bytes(lab.site.mail.message_size_limit) - HEADERS) // len(line)) + b".\r\n"
    together, answers = threading.Barrier(2), []

    def send(client: Client) -> None:
        with client.smtp(SMTP.port) as smtp:
            assert smtp.sock is not None  # noqa: S101 - it is connected
            smtp.mail(sender)
            smtp.rcpt(mailbox)
            smtp.docmd("DATA")
            together.wait()
            smtp.sock.settimeout(SECONDS * slowness())
            smtp.sock.sendall(text)
            answers.append(smtp.getreply())

    threads = [threading.Thread(target=send, args=(Client(lab),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in threads) or lab.pod.host.run("postqueue", "-j").stdout:
        most = max(most, pod_memory(lab))
        time.sleep(0.05)
    if [code for code, _ in answers] != [250, 250]:
        raise UserError(f"two messages of {len(text) >> 20} MiB at once: {answers}")
    return most
