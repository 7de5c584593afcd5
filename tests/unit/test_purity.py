"""The middle knows nothing of Pulumi, so that it can be tested, rendered and run in the lab without it."""

import subprocess
import sys

import pytest

from tools.offline.stackfile import ROOT

PURE = [
    "components.jobs.bounds",
    "components.dns.gate",
    "components.checks.dns.verify",
    "components.dns.web_pages",
    "components.dns.zonefile",
    "components.edge.agent",
    "components.edge.client",
    "components.edge.connection",
    "components.edge.desired",
    "components.edge.differences",
    "components.edge.haproxy_cfg",
    "components.listeners",
    "components.notices",
    "components.checks.objects",
    "components.settings.parse",
    "components.mail.files",
    "components.mail.image",
    "components.mail.secrets",
]


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_imports_no_pulumi(module):
    code = f"import sys, {module}; sys.exit(any(name.partition('.')[0].startswith('pulumi') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
