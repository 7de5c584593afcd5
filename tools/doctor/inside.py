"""What only a pod can see: the run of a job in the cluster, whose lines are the results."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any, get_args

from components.errors import UserError
from components.jobs.inside import INSIDE
from tools.cluster import kubectl, reason
from tools.commands.job import manifest
from tools.doctor.check import Area, Seen, Verdict
from tools.doctor.patient import Patient
from tools.offline.program import run
from tools.offline.stackfile import Stack, site_of

AREA = Area("inside", "what only a pod can see; with `INSIDE=1` (settings: doctor.inside)")
SECONDS = 240  # until its pod has run; the job's own deadline is the same


class Errand:
    """One run of the job, for every check that asks; the first one starts it, and the others wait. `end` leaves nothing of it."""

    def __init__(self, stack: Stack) -> None:
        self._site = site_of(stack)
        self._lock = threading.Lock()
        self._told: list[tuple[str, Seen]] | UserError | None = None
        self._job: str | None = None
        try:
            self._manifest = self._rendered(stack)  # not in a check's thread: Pulumi's SDK is made for one
        except UserError as error:
            self._told = error

    def __call__(self) -> list[tuple[str, Seen]]:
        """What the job saw, by check. Raises UserError where it could not run."""
        with self._lock:
            if self._told is None:
                try:
                    self._told = self._run()
                except UserError as error:
                    self._told = error
        if isinstance(self._told, UserError):
            raise self._told
        return self._told

    def end(self) -> None:
        """Delete the job, also one that still runs because the doctor was interrupted."""
        if self._job:
            self._kubectl("delete", "job", self._job, "--wait=false", "--ignore-not-found")

    def _rendered(self, stack: Stack) -> dict[str, Any]:
        if not self._site.doctor.inside:
            raise UserError("doctor.inside: is not set, so there is no job to run inside; set it and run `make up`")
        suffix = f"{time.strftime('%m%d%H%M%S', time.gmtime())}-{os.getpid() % 1000}"
        return manifest(run(stack).kubernetes(), INSIDE, [], suffix)

    def _run(self) -> list[tuple[str, Seen]]:
        self._job = self._manifest["metadata"]["name"]
        self._ask("create", "--filename", "-", text=json.dumps(self._manifest))
        self._ask("wait", "--for", "condition=complete", f"job/{self._job}", f"--timeout={SECONDS}s")
        return list(_results(self._ask("logs", f"job/{self._job}")))

    def _ask(self, *arguments: str, text: str | None = None) -> str:
        said = self._kubectl(*arguments, text=text)
        if said.returncode:
            raise UserError(f"job {self._job}: {reason(said.stderr)}")
        return said.stdout

    def _kubectl(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        try:
            return kubectl(self._site.cluster.context, "--namespace", self._site.namespace, *arguments, text=text, seconds=SECONDS + 20)
        except FileNotFoundError:
            raise UserError("needs kubectl") from None


def _results(log: str) -> Iterator[tuple[str, Seen]]:
    for line in log.splitlines():
        if line.startswith("["):
            check, verdict, about, text = json.loads(line)
            if verdict not in get_args(Verdict):
                raise UserError(f"the job's program is another version than this one: verdict {verdict}")
            yield check, Seen(verdict, about, text)


def _told(patient: Patient, check: str) -> Iterator[Seen]:
    assert patient.errand is not None  # noqa: S101 - areas.py
    yield from (seen for name, seen in patient.errand() if name == check)


@AREA.check(
    "services",
    expects="every stock port greets a pod, with a certificate that verifies",
    remedy="mail.allowed_namespaces and the network policy; then the pod's log of Postfix and Dovecot",
    page="runbooks/deploy.md",
)
def services(patient: Patient) -> Iterator[Seen]:
    """The ports that programs of the cluster use."""
    yield from _told(patient, "services")


@AREA.check(
    "log-in-without-tls",
    expects="no log-in before TLS",
    remedy="`make preview REFRESH=1` shows what changed the listeners; then the extra lines of the settings",
    page="runbooks/deploy.md",
)
def log_in_without_tls(patient: Patient) -> Iterator[Seen]:
    """Whether a stock port offers a log-in before STARTTLS."""
    yield from _told(patient, "log-in-without-tls")


@AREA.check(
    "open-relay",
    expects="mail for others is refused without a log-in",
    remedy="look for mynetworks and restrictions in mail.extra: a program of the cluster has to log in",
    page="runbooks/deploy.md",
)
def open_relay(patient: Patient) -> Iterator[Seen]:
    """A recipient elsewhere at every stock port; nothing is sent."""
    yield from _told(patient, "open-relay")


@AREA.check(
    "export",
    expects="the volumes of the backups are mounted, writable and not full",
    remedy="the NFS server: is the export there, may this cluster's nodes write to it, is its disk full",
    page="runbooks/restore.md",
)
def export(patient: Patient) -> Iterator[Seen]:
    """A file without a name is written to each repository's volume as the backup would write, and is gone at once."""
    yield from _told(patient, "export")
