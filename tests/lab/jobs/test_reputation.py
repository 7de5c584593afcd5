"""The look at block lists, against a real name server (BIND) that holds them: a listing, a refusal, a list that is gone."""

import importlib.util

import pytest

from tests.lab.jobs.world import SCRIPTS
from tests.tools.test_doctor_dns import serving

JOB = "mail-reputation"
ADDRESS, SIXTH, DOMAIN, RELAY = "192.0.2.25", "2001:db8::25", "example.org", "198.51.100.7"
SOA = "$TTL 60\n@ IN SOA ns hostmaster 1 60 60 60 60\n@ IN NS ns\nns IN A 192.0.2.53\n"
# As RFC 5782 wants them; written out, not made by the program under test.
IPV4 = "2.0.0.127 IN A 127.0.0.2\n"
IPV6 = "2.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0 IN A 127.0.0.2\n"
OF_ADDRESS, OF_RELAY = "25.2.0.192", "7.100.51.198"
OF_SIXTH = "5.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"
SOUND = {
    "zen.spamhaus.org": SOA + IPV4 + IPV6,
    "dbl.spamhaus.org": SOA + "test IN A 127.0.1.2\n",
    "bl.spamcop.net": SOA + IPV4,
    "psbl.surriel.com": SOA + IPV4,
    "bl.mailspike.net": SOA + IPV4,
}


@pytest.fixture
def look(tmp_path, job, gateway):
    """`look({zone: more lines})`: who is listed, by list, and which lists are believed."""

    def run(more, *, instead=False):
        folder = tmp_path / f"names-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        texts = {zone: text + (more.get(zone) or "") for zone, text in SOUND.items() if more.get(zone, "") is not None}
        texts |= {zone: SOA + text for zone, text in more.items() if instead and text is not None}
        with serving(folder, texts) as port:
            asked = ("--address", ADDRESS, "--address", SIXTH, "--domain", DOMAIN, "--relay", RELAY)
            done = job(
                "reputation.py", "--job", JOB, *asked, "--resolver", f"127.0.0.1:{port}", "--timeout", 5, "--pushgateway", gateway.url
            )
        assert done.returncode == 0, done.stdout + done.stderr
        group = gateway.groups[JOB]
        entries = [(dict(labels), value) for labels, value in group.get("mail_blocklist_listed", {}).items()]
        listed = {(sample["list"], sample["subject"], sample["whose"], sample["entry"]) for sample, value in entries if value}
        believed = {dict(labels)["list"] for labels, value in group["mail_blocklist_usable"].items() if value}
        return listed, believed, done.stdout

    return run


def test_a_clean_record_is_clean_and_every_list_was_believed(look, gateway):
    listed, believed, _ = look({})
    assert (listed, believed) == (set(), SOUND.keys())
    samples = gateway.groups[JOB]["mail_blocklist_listed"]
    about = {(dict(labels)["list"], dict(labels)["subject"]) for labels in samples}
    ipv4 = {(zone, subject) for zone in SOUND if zone != "dbl.spamhaus.org" for subject in (ADDRESS, RELAY)}
    assert about == ipv4 | {("zen.spamhaus.org", SIXTH), ("dbl.spamhaus.org", DOMAIN)}


def test_a_listing_is_told_by_whose_it_is_and_a_providers_policy_is_not_one(look):
    listed, _, said = look(
        {
            "zen.spamhaus.org": f"{OF_ADDRESS} IN A 127.0.0.11\n{OF_SIXTH} IN A 127.0.0.4\n"
            f"{OF_RELAY} IN A 127.0.0.10\n{OF_RELAY} IN A 127.0.0.3\n",
            "dbl.spamhaus.org": f"{DOMAIN} IN A 127.0.1.5\n",
        }
    )
    assert listed == {
        ("zen.spamhaus.org", ADDRESS, "own", "policy"),
        ("zen.spamhaus.org", RELAY, "relay", "listed"),
        ("zen.spamhaus.org", SIXTH, "own", "listed"),
        ("dbl.spamhaus.org", DOMAIN, "own", "listed"),
    }
    assert "see https://check.spamhaus.org" in said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("* IN A 127.255.255.254\n", "refuses us"),  # to a public resolver
        ("* IN A 192.0.2.80\n", "refuses us"),  # a resolver that answers every name, or a domain that was sold
        ("* IN A 127.0.0.2\n", "lists everything"),
        ("", "does not know its own test entry"),
        (None, "does not answer"),
    ],
)
def test_a_list_that_refuses_or_is_gone_says_nothing_about_us(look, text, why):
    listed, believed, said = look({"bl.spamcop.net": text}, instead=True)
    assert (listed, believed) == (set(), SOUND.keys() - {"bl.spamcop.net"})
    assert f"bl.spamcop.net: {why}" in said


def test_a_listing_that_is_gone_leaves_no_series(look):
    assert look({"psbl.surriel.com": f"{OF_ADDRESS} IN A 127.0.0.2\n"})[0]
    assert look({"psbl.surriel.com": None})[0] == set(), "the list is silent now, and what it said before is not believed on"


def test_the_table_of_lists_needs_nothing_but_python():
    """The doctor and the pod load it each in their own environment."""
    spec = importlib.util.spec_from_file_location("blocklists", SCRIPTS / "blocklists.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["blocklists"] = module
    spec.loader.exec_module(module)
    assert [blocklist.zone for blocklist in module.LISTS] == list(SOUND)
