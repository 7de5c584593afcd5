"""`make lab`: the rendered mail edge of a stack on this machine, to send and read mail with."""

import contextlib
import re
import signal
import threading
from pathlib import Path

import click
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from components.errors import UserError
from components.listeners import IMAPS, SMTP, SUBMISSION
from components.names import MAIL_SERVER
from tools.cluster import kubectl
from tools.commands.doctor import table
from tools.commands.shared import stack_option
from tools.doctor import edge, mail
from tools.doctor.examine import examine
from tools.lab.compare import differences
from tools.lab.edge import Lab, client_name
from tools.lab.hosts import missing
from tools.lab.image import LOG
from tools.lab.majors import MAJORS
from tools.lab.mta import KEPT
from tools.lab.paths import CLIENT_DOMAIN, SENDER_DOMAIN
from tools.lab.patient import patient_of_lab
from tools.lab.webmail import Webmail, on_loopback
from tools.offline.stackfile import ROOT, load_stack, site_of

# Not the PROXY ports: in a lab the client is where HAProxy is, so they believe it.
IN_A_LAB = [
    *(check for check in mail.AREA.checks if check.id != "mail.programs"),
    *edge.CLIENT,
    edge.no_header,
]


def guide(lab: Lab) -> str:
    """What to type in another terminal, as root; every line was made for this very lab."""
    address, host = str(lab.site.edge.address), lab.site.hostname
    mailbox = next(iter(lab.site.mail.mailboxes))
    password = lab.passwords[mailbox]
    outside = lab.relay if lab.site.mail.relay else lab.sender
    trust = f"--cacert /etc/ssl/lab.pem --connect-to {host}::{address}: "
    lab.world.write("/etc/ssl/lab.pem", lab.authority.certificate)
    source = lab.client()
    enter, pod = f"nsenter -t {lab.world.pid} -m -n", f"nsenter -t {lab.pod.host.pid} -m -n -p"
    curl = f"{enter} curl -sS -T - "
    lines = [
        f"{host} listens on {address} behind HAProxy (ports 25, 465, 587, 993). Passwords of this lab:",
        *(f"  {name}  {word}" for name, word in lab.passwords.items()),
        "",
        "Send from outside (postscreen greets a new client after six seconds):",
        f"  printf 'From: friend@{CLIENT_DOMAIN}\\nTo: {mailbox}\\nDate: %s\\nMessage-ID: <%s@lab>\\nSubject: hello\\n\\nhi\\n' \\",
        f'    "$(date -R)" "$(date +%s)" | {curl}\\',
        f"    --interface {source} --mail-from friend@{CLIENT_DOMAIN} --mail-rcpt {mailbox} smtp://{address}:{SMTP.port}/{client_name(source)}",
        "Send as a user to the outside:",
        f"  printf 'From: {mailbox}\\nSubject: out\\n\\nhi\\n' | {curl}--ssl-reqd {trust}\\",
        f"    --user '{mailbox}:{password}' --mail-from {mailbox} --mail-rcpt friend@{SENDER_DOMAIN} smtp://{host}:{SUBMISSION.port}",
        "Read:",
        f"  {enter} curl -sS {trust}--user '{mailbox}:{password}' 'imaps://{host}:{IMAPS.port}/INBOX;MAILINDEX=1'",
        "Look:",
        f"  {pod} tail -f {LOG}    # what the mail server logs",
        f"  {pod} postqueue -p     # its queue",
        f"  {pod} bash             # inside the pod",
        f"  nsenter -t {outside.host.pid} -m -n sh -c 'cat {KEPT}/mail/new/*'    # what the outside was given",
    ]
    return "\n".join(lines)


@click.command()
@stack_option
@click.option("--picture", type=click.Path(path_type=Path), help="write what is printed to this file, as SVG")
def lab_doctor_command(stack: str, picture: Path | None) -> None:
    """The doctor on the rendered mail edge of a stack, on this machine; what needs a cluster is left out."""
    if reason := missing():
        raise UserError(reason)
    console = Console(highlight=False, width=120, record=True)
    with Lab(site_of(load_stack(ROOT, stack))) as lab:
        lab.wait_until_served()
        certificate = lab.authority.issue(*lab.site.tls.names, days=60)
        lab.pod.mount_certificate(*certificate)
        lab.pod.detect_changes()
        with lab.outside():
            results = examine(patient_of_lab(lab), IN_A_LAB, lambda check: None)
    console.print(f"$ make lab-doctor STACK={stack}")
    console.print(table(results, everything=True))
    if picture:
        # No font from elsewhere: a reader's browser asks no one for it.
        console.save_svg(
            str(picture), title="make doctor", code_format=re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.S)
        )


@click.command()
@stack_option
@click.option("--minutes", type=float, default=60, show_default=True, help="the lab stops by itself after this time")
def lab_command(stack: str, minutes: float) -> None:
    """The rendered mail edge of a stack on this machine, to send and read mail with."""
    if reason := missing():
        raise UserError(reason)
    site = site_of(load_stack(ROOT, stack))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    print("starting: Postfix, Dovecot, Rspamd, HAProxy, a relay and the Internet around them", flush=True)
    with contextlib.ExitStack() as running:
        lab = running.enter_context(Lab(site))
        print(guide(lab), flush=True)
        if site.webmail:
            running.enter_context(Webmail(lab))
            port = running.enter_context(on_loopback(lab))
            print(f"Webmail (the certificate is the lab's own):\n  https://localhost:{port}/", flush=True)
        print(f"\nStop it with Ctrl-C; it stops by itself after {minutes:g} minutes.", flush=True)
        stop.wait(minutes * 60)
    print("stopped; nothing is left behind")


@click.command()
@stack_option
def lab_compare_command(stack: str) -> None:
    """Compares the running mail server with what the lab expects of the image (tools/lab/facts.py)."""
    site = site_of(load_stack(ROOT, stack))

    def inside(*command: str) -> str:
        place = ("-n", site.namespace, "exec", f"deployment/{MAIL_SERVER}", "-c", "docker-mailserver", "--")
        done = kubectl(site.cluster.context, *place, *command)
        if done.returncode:
            raise UserError(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1]}")
        return done.stdout

    for line in differences(inside, MAJORS[site.mail.image_major]):
        print(line)
