"""Only a key in the stage `signing` signs; one that is published is fetched already; the others are only in DNS."""

from collections.abc import Callable

from components.mail.files import DKIM_LIST, config_files
from components.mail.secrets import mounted_secrets, secret_plans
from components.settings.site import Site

KEY = "A" * 43 + "="
SOURCE = {"key": "platform", "property": "dkim"}
ROTATION = [
    {"selector": "next", "stage": "published", "public_key": KEY, "source": SOURCE},
    {"selector": "now", "stage": "signing", "public_key": KEY, "source": SOURCE},
    {"selector": "then", "stage": "retiring", "public_key": KEY, "source": SOURCE, "retired_on": "2026-01-01"},
    {"selector": "once", "stage": "revoked", "public_key": KEY, "source": SOURCE, "retired_on": "2026-01-01"},
]
SETTING = "domains/viktorbarzin.me/dkim"


def test_rspamd_signs_with_signing_keys_only(site: Callable[..., Site]):
    files = config_files(site("prod", {SETTING: ROTATION}))
    conf = files["rspamd/override.d/dkim_signing.conf"]
    assert [line.split('"')[1] for line in conf.splitlines() if "selector =" in line] == ["now"]
    assert files[DKIM_LIST] == "viktorbarzin.me.now\n"


def test_two_keys_may_sign_at_once(site: Callable[..., Site]):
    both = [ROTATION[0] | {"stage": "signing"}, ROTATION[1]]
    assert config_files(site("prod", {SETTING: both}))[DKIM_LIST] == "viktorbarzin.me.next\nviktorbarzin.me.now\n"


def test_the_secret_holds_the_next_key_already(site: Callable[..., Site]):
    plans = {plan.name: plan for plan in secret_plans(site("prod", {SETTING: ROTATION}))}
    assert set(plans["mailserver-dkim"].keys) == {"viktorbarzin.me.next", "viktorbarzin.me.now"}


def test_a_domain_whose_keys_are_all_past_signs_nothing(site: Callable[..., Site]):
    past = site("prod", {SETTING: ROTATION[2:], "dns": None})
    assert "rspamd/override.d/dkim_signing.conf" not in config_files(past)
    assert "dkim" not in mounted_secrets(past)
