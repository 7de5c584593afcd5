"""A second user, without a secret store, an Ingress controller or Prometheus: a site runs after what `make init` prints was typed."""

import json
import re
import shlex

import pytest

from tests.engine.cluster import Site, throwaway
from tests.engine.predecessor import CLASS
from tools.lab.certificates import Authority

GIVEN = ("DOMAIN=example.net", "FIREWALL=192.0.2.1", "ADDRESSES=203.0.113.9", f"STORAGE_CLASS={CLASS}", "PODS=10.244.0.0/16")


@pytest.fixture(scope="module")
def typed(checkout, state, tmp_path_factory):
    """The site, and what was said to each line that was to be typed; only the question of `make up` is answered beforehand."""
    with throwaway(tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.clean()
        cluster.prepare()
        status = {"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.11"}]}}
        cluster.kubectl("patch", "node", "node1", "--subresource=status", "--type=merge", "-p", json.dumps(status))
        site = Site(checkout, cluster, stack="home")
        try:
            printed = site.make("init", f"CONTEXT={cluster.context}", *GIVEN)
            certificate, key = Authority().issue("mail.example.net")
            (checkout / "fullchain.pem").write_text(certificate)
            (checkout / "privkey.pem").write_text(key)
            lines = re.findall(r"^ {7}((?:kubectl|make) .*)$", printed, re.MULTILINE)
            said = {}
            for line in lines:
                words = [*shlex.split(line), *(["YES=1", "-o", ".venv/.locked"] if line.startswith("make up") else [])]
                done = site.run(*words)
                assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
                said[line] = done.stdout
                if line.endswith("create namespace mailserver"):
                    cluster.volume("mailserver-data", "5Gi")
            yield site, said
        finally:
            cluster.clean()


def test_each_line_that_is_printed_works_as_it_is_printed(typed):
    site, said = typed
    assert [line.split()[:2] for line in said if line.startswith("make")] == [["make", word] for word in ("stack-init", "preview", "up")]
    assert site.cluster.get("Deployment", "mailserver")["spec"]["replicas"] == 1
    assert site.cluster.get("PersistentVolumeClaim", "mailserver-data")["status"]["phase"] == "Bound"


def test_the_pod_finds_every_key_that_it_mounts(typed):
    site, _ = typed
    pod = site.cluster.get("Deployment", "mailserver")["spec"]["template"]["spec"]
    mounted = {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
    assert mounted == {"mail-tls", "mailserver-accounts", "mailserver-dkim"}
    for name, keys in {
        "mail-tls": {"tls.crt", "tls.key"},
        "mailserver-accounts": {"accounts"},
        "mailserver-dkim": {"example.net.mail"},
    }.items():
        assert site.cluster.get("Secret", name)["data"].keys() == keys


def test_nothing_has_drifted_and_nothing_is_left_to_change(typed):
    site, _ = typed
    assert "no drift" in site.make("drift")
    assert "summary:\n  nothing to change\n" in site.make("preview")
