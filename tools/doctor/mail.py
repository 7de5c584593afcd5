"""Inside the mail server's pod: its programs, queue, disk and accounts."""

import json
import time
from collections import Counter
from collections.abc import Iterator

from components.mail.rspamd import CONTROLLER_PORT
from components.names import MAIL_SERVER
from components.settings.quantity import in_bytes
from tools.cluster import answer
from tools.doctor.check import Area, Seen, broken, degraded, ok
from tools.doctor.patient import Patient

AREA = Area("mail", "inside the mail server's pod")
DISKS = ("/var/mail", "/var/mail-state")
FULL = 1.5  # of the largest message must fit, or Postfix refuses mail (queue_minfree)
TIGHT = 0.1  # of the disk
HOUR, DAY = 3600.0, 86400.0
LISTEN = "0A"  # state of a listening socket in /proc/net/tcp


@AREA.check(
    "programs",
    expects="every program of the image that was started runs",
    remedy="the pod's log says why it ended; `kubectl rollout restart deployment mailserver` starts all of them again",
    page="runbooks/deploy.md",
)
def programs(patient: Patient) -> Iterator[Seen]:
    """The image's supervisor: a program that it gave up, or that ends again and again."""
    # Its exit code counts stopped programs too, and some are meant to be.
    for line in patient.inside("supervisorctl", "status").stdout.splitlines():
        name, state, *rest = line.split()
        if state in {"FATAL", "BACKOFF", "EXITED", "UNKNOWN"}:
            yield broken(name, " ".join([state.lower(), *rest]))


@AREA.check(
    "sockets",
    expects="all eight ports are listened on",
    remedy="the pod's log of Postfix and Dovecot: a listener that was refused is named there",
    page="runbooks/deploy.md",
)
def sockets(patient: Patient) -> Iterator[Seen]:
    """The stock port and the PROXY port of each service, as the pod's kernel lists them."""
    open_ports = listening(patient)
    for listener in patient.site.listeners:
        missing = [port for port in (listener.port, listener.proxy_port) if port not in open_ports]
        if missing:
            yield broken(listener.name, f"nothing listens on {', '.join(map(str, missing))}")
        else:
            yield ok(listener.name, f"{listener.port} and {listener.proxy_port}")


def listening(patient: Patient) -> set[int]:
    """The ports on which something listens in the pod."""
    table = answer(patient.inside("cat", "/proc/net/tcp", "/proc/net/tcp6"))
    rows = [line.split() for line in table.splitlines()]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == LISTEN}


@AREA.check(
    "queue",
    expects="no message waits for longer than an hour",
    remedy="`postqueue -p` in the pod says why each waits; a relay that refuses: its account and quota",
    page="runbooks/deploy.md",
)
def queue(patient: Patient) -> Iterator[Seen]:
    """Postfix's queue: how many messages wait, and for how long the oldest one has."""
    waiting = [json.loads(line) for line in answer(patient.inside("postqueue", "-j")).splitlines()]
    if not waiting:
        yield ok("queue", "empty")
        return
    oldest = min(waiting, key=lambda message: message["arrival_time"])
    age = time.time() - oldest["arrival_time"]
    reasons = Counter(recipient.get("delay_reason", "") for message in waiting for recipient in message.get("recipients", []))
    reason, _ = reasons.most_common(1)[0] if reasons else ("", 0)
    text = f"{len(waiting)} messages, the oldest for {age / 60:.0f} min; {reason or 'not tried yet'}"
    yield (ok if age < HOUR else degraded if age < DAY else broken)("queue", text)


@AREA.check(
    "disk",
    expects="the volumes have free space for new mail",
    remedy="grow the claim, or delete what retention may; below 1.5 times the largest message Postfix refuses all mail",
    page="runbooks/deploy.md",
)
def disk(patient: Patient) -> Iterator[Seen]:
    """Free bytes where mail and state are kept, against the largest message."""
    needed = FULL * in_bytes(patient.site.mail.message_size_limit)
    table = answer(patient.inside("df", "--block-size=1", "--output=target,size,avail", *DISKS))
    seen = set()
    for line in table.splitlines()[1:]:
        target, size, free = line.split()
        if target in seen:
            continue
        seen.add(target)
        text = f"{int(free) >> 20} MiB free of {int(size) >> 20}"
        yield (broken if int(free) < needed else degraded if int(free) < TIGHT * int(size) else ok)(target, text)


@AREA.check(
    "accounts",
    expects="the pod runs on the accounts and aliases of its Secrets",
    remedy="mend the Secret that the line names, and restart the pod",
    page="runbooks/deploy.md",
)
def accounts(patient: Patient) -> Iterator[Seen]:
    """Whether the pod's start found a fault in a Secret, and whether an account is listed twice."""
    site = patient.site
    said = patient.kubectl("logs", "--namespace", site.namespace, f"deployment/{MAIL_SERVER}", "--container", "assemble", "--tail", "100")
    for line in answer(said).splitlines():
        if line.startswith("assemble: "):
            yield degraded("accounts", line.strip())
    users = Counter(answer(patient.inside("doveadm", "user", "*")).split())
    for address, count in users.items():
        if count > 1:
            yield broken(address, f"is listed {count} times, so Dovecot refuses its mail")
    missing = set(site.mail.mailboxes) - users.keys()
    if missing:
        yield broken("accounts", f"declared, and unknown to Dovecot: {', '.join(sorted(missing))}")
    else:
        yield ok("accounts", f"{len(users)} accounts")


@AREA.check(
    "filter",
    expects="Rspamd answers",
    remedy="without it Postfix defers all mail (4xx): the pod's log of rspamd says why it does not answer",
    page="filter.md",
)
def rspamd(patient: Patient) -> Iterator[Seen]:
    """Rspamd's worker for Postfix and its controller, asked in the pod."""
    said = patient.inside("curl", "--silent", "--show-error", "--max-time", "10", f"http://127.0.0.1:{CONTROLLER_PORT}/ping")
    if said.stdout.strip() == "pong":
        yield ok("Rspamd", "answers")
    else:
        yield broken("Rspamd", said.stderr.strip() or f"answers {said.stdout.strip()[:60]!r}")
