"""The site that `make init` writes takes its first message."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import copy_checkout
from tests.lab.support import Known, arrives
from tools.lab.client import message
from tools.lab.edge import Lab
from tools.offline.stackfile import load_stack, site_of

GIVEN = ("--domain=example.net", "--context=none", "--nodes=w1=192.0.2.11", "--pods=10.244.0.0/16", "--firewall=192.0.2.1")


def test_a_message_from_outside_reaches_the_first_mailbox(tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path / "checkout")
    init = [sys.executable, "-m", "tools", "init", "--stack=home", *GIVEN, "--addresses=203.0.113.25"]
    done = subprocess.run(init, cwd=checkout, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    with Lab(site_of(load_stack(checkout, "home"))) as lab:
        mail = message(to="postmaster@example.net")
        Known(lab)().send(mail, ["postmaster@example.net"])
        arrives(lab, "me@example.net", mail)
