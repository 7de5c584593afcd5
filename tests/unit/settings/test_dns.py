"""DNS settings that are refused by themselves: one line, the setting, and what would be right."""

from collections.abc import Callable

import pytest

from components.errors import UserError
from components.settings.site import Site
from tests.conftest import Settings

D = "domains/viktorbarzin.me"
Z = "dns/zones/viktorbarzin.me"
CASES: dict[str, tuple[Settings, str]] = {
    "a DMARC tag that is gone": ({f"{D}/dns/dmarc/pct": 100}, "domains.viktorbarzin.me.dns.dmarc.pct: unknown setting"),
    "an invalid policy": ({f"{D}/dns/dmarc/policy": "block"}, "dns.dmarc.policy: Input should be 'none', 'quarantine' or 'reject'"),
    "+all": ({f"{D}/dns/spf/all": "pass"}, "dns.spf.all: Input should be 'fail', 'softfail' or 'neutral'"),
    "a report address without scheme": ({f"{D}/dns/tls_reports": ["me@viktorbarzin.me"]}, "dns.tls_reports.0: write mailto:"),
    "an address twice": ({f"{D}/dns/tls_reports": ["mailto:a@b.example"] * 2}, "dns.tls_reports: lists an entry twice"),
    "a code with an umlaut": ({f"{D}/dns/verification": ["prüfung=1"]}, "dns.verification.0: write printable ASCII"),
    "a trailing dot": ({f"{D}/dns/dkim_cnames": {"brevo1": "b1.example.net."}}, "without a trailing dot"),
    "upper case": ({f"{D}/dns/mx": {"Mail.viktorbarzin.me": 1}}, "in lower case"),
    "an international name": ({f"{D}/dns/mx": {"bücher.example": 1}}, "in punycode"),
    "a policy that lives for years": ({f"{D}/dns/mta_sts/max_age": 31_557_601}, "less than or equal to 31557600"),
    "a selector with a dot at its end": ({f"{D}/dns/dkim_cnames": {"s1.": "b1.example.net"}}, "write a DKIM selector"),
    "an empty key": ({f"{D}/dkim/0/public_key": "v=DKIM1; p="}, "dkim.0.public_key: write the public key as base64"),
    "a key cut short": ({f"{D}/dkim/0/public_key": "A" * 45}, "dkim.0.public_key: write the public key as base64"),
    "a TTL that Cloudflare refuses": ({"dns/ttl": 30}, "dns.ttl: Input should be greater than or equal to 60"),
    "an invalid zone id": ({f"{Z}/cloudflare": "viktorbarzin"}, "zones.viktorbarzin.me.cloudflare: write an id as Cloudflare shows it: 32"),
    "an id adopted for two keys": (
        {f"{Z}/adopt": {"spf": "a" * 32, "dmarc": "a" * 32}},
        "dns.zones.viktorbarzin.me.adopt.dmarc: has the id of 'spf'; each live record can be adopted only once",
    ),
    "addresses and a name": ({"dns/web/name": "t.example.net"}, "dns.web.addresses: set exactly one of addresses and name"),
    "a tunnel past the proxy": (
        {"dns/web": {"name": "1.cfargotunnel.com"}},
        "dns.web.proxied: a tunnel can only be reached through Cloudflare's proxy",
    ),
    "a mail host without address": ({"dns/hosts/mail.viktorbarzin.me/addresses": []}, "dns.hosts.mail.viktorbarzin.me.addresses"),
}


@pytest.mark.parametrize("what", CASES)
def test_is_refused_by_name(what: str, site: Callable[..., Site]):
    changes, expected = CASES[what]
    with pytest.raises(UserError) as refusal:
        site("prod", changes)
    assert expected in str(refusal.value)


def test_a_public_key_may_be_given_as_the_whole_record(site: Callable[..., Site]):
    key = "A" * 44
    for written in (key, f"v=DKIM1; k=ed25519; p={key}", f"v=DKIM1;k=ed25519;p={key};", f" {key[:20]}\n{key[20:]} "):
        assert site("prod", {f"{D}/dkim/0/public_key": written}).domains["viktorbarzin.me"].dkim[0].public_key == key
