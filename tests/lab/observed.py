"""The lab's mail server under observation: its pulse and the probe report to a real Prometheus."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import CompletedProcess

from components.mail.files import PULSE_ARGUMENTS, SCRIPTS_DIR
from components.mail.image import CONFIG_DIR
from tests.lab.probe import BOX, Edge
from tests.lab.support import certify, lab_site
from tests.lab.watch import Watch
from tools.lab.edge import Lab
from tools.lab.paths import NAMESERVER, POD

PROBE = {"mailbox": BOX, "recipient": "smoke-test@example.org", "api": "https://api.relay.example/v3"}


class Observed:
    """What its callers start belongs to the lab's Internet host."""

    def __init__(self, lab: Lab, edge: Edge, watch: Watch) -> None:
        self.lab, self.edge, self.watch, self.site = lab, edge, watch, watch.site
        edge.gateway.url = watch.url

    def pulse(self) -> None:
        once = ("--interval=0", f"--pushgateway={self.watch.url}")
        self.lab.pod.host.run("python3", "-B", f"{SCRIPTS_DIR}/pulse.py", f"@{CONFIG_DIR}/{PULSE_ARGUMENTS}", *once)

    def retention(self) -> CompletedProcess[str]:
        world, site = self.lab.world, self.lab.site
        world.write(f"/passwords/{BOX.replace('@', '_at_')}", self.lab.passwords[BOX])
        place = ("--job", "spam-retention", "--name", site.hostname, "--address", POD, "--passwords", "/passwords")
        rule = ("--rule", f"{BOX}|INBOX|automated|14", "--max-messages", "5", "--max-share", "50", "--pushgateway", self.watch.url)
        trust = {"SSL_CERT_FILE": "/etc/ssl/certs/lab-ca.pem"}
        return world.run("python3", "-B", "/scripts/retention.py", *place, *rule, check=False, env=trust, seconds=120)

    def firing(self) -> set[str]:
        self.pulse()
        self.edge.probe()
        return self.watch.firing()


@contextmanager
def observation(lab: Lab, edge: Edge, folder: Path) -> Iterator[Observed]:
    """With a certificate that is good for long, and probe messages that are sound."""
    certify(lab, 60)
    edge.public()
    try:
        with ExitStack() as stack, lab.outside():
            yield Observed(lab, edge, Watch(stack, folder, lab_site({"jobs/probe": PROBE}), NAMESERVER))
    finally:
        certify(lab, 2)
