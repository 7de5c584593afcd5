"""Every command on the page of the first up is one that its program understands."""

import re
import shlex
import shutil
import subprocess

import pytest

from tools.offline.stackfile import ROOT

PAGE = (ROOT / "docs" / "runbooks" / "first-up.md").read_text("utf-8")
IN_TABLES = [line.replace("\\|", "|") for line in re.findall(r"\| `([^`]+)` \|$", PAGE, re.MULTILINE)]
LINES = IN_TABLES + re.findall(r"^ {7}(\w.+)$", PAGE, re.MULTILINE)


def test_the_page_has_a_command_for_most_rows():
    assert len(LINES) > 12


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("kubectl")])
def test_kubectl_understands_each_of_its_commands(line: str, tmp_path):
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    words = shlex.split(line.partition(" | ")[0])
    if "config" not in words:
        words[1:1] = ["--server=http://127.0.0.1:9", "--request-timeout=5s"]  # the discard port: nothing listens
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, timeout=60
    )
    assert done.returncode == 0 or "refused" in done.stderr, done.stderr


@pytest.mark.parametrize("line", LINES)
def test_the_shell_reads_each_command(line: str):
    done = subprocess.run(["sh", "-n", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_the_page_names_is_what_production_says():
    stack = (ROOT / "Pulumi.prod.yaml").read_text("utf-8")
    for word in ("tier-3-edge", "tls-secret", "vault-kv", "192.168.1.127", "dns_ndots", "docs@viktorbarzin.me"):
        assert word in stack, word
