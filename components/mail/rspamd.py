"""Rspamd: the files of its override.d, by name."""

from components.mail.image import DKIM_DIR
from components.settings.dkim import DkimKey
from components.settings.mail import SendingLimit
from components.settings.site import Site
from components.settings.types import Fqdn

MILTER_PORT = 11332  # where Postfix hands mail to Rspamd inside the pod, in the image
LIMIT_REACHED = "has reached the sending limit"  # Postfix logs it behind the account
CONTROLLER_PORT = 11334  # the image's; from the pod's own loopback address it asks for no password


def overrides(site: Site) -> dict[str, str]:
    """Rspamd's configuration files (UCL) in which we differ from the image, by file name."""
    # The image adds Rspamd's own headers only; Sieve scripts and the probe read the standard one (RFC 8601).
    files = {"milter_headers.conf": 'use = ["authentication-results"];\n'}
    # The image's is open on every address, and its password is the package's published one. Junk mail is learned over loopback.
    files["worker-controller.inc"] = f'bind_socket = "127.0.0.1:{CONTROLLER_PORT}";\n'
    if any(domain.signing_keys for domain in site.domains.values()):
        files["dkim_signing.conf"] = _dkim_signing(site)
    if site.mail.rspamd.phishing:
        files["phishing.conf"] = "openphish_enabled = true;\n"
    if site.mail.rspamd.oletools:
        files["external_services.conf"] = f'oletools {{\n  servers = "{site.mail.rspamd.oletools}";\n}}\n'
    if site.mail.sending_limit:
        files["ratelimit.conf"] = _ratelimit(site.mail.sending_limit)
        if site.mail.extra.environment.get("RSPAMD_CHECK_AUTHENTICATED") != "1":
            files["settings.conf"] = _AUTHENTICATED
    if site.mail.trusted_relays:
        files["external_relay.conf"] = _external_relay(site)
        files["force_actions.conf"] = _force_actions(site)
    return files | {f"{module}.conf": "enabled = false;\n" for module in site.mail.rspamd.disabled_modules}


def dkim_key_path(domain: Fqdn, key: DkimKey) -> str:
    return f"{DKIM_DIR}/{key.secret_key(domain)}"


def _dkim_signing(site: Site) -> str:
    domains = ""
    for name, domain in site.domains.items():
        keys = [f'      {{ selector = "{key.selector}"; path = "{dkim_key_path(name, key)}"; }}\n' for key in domain.signing_keys]
        if keys:
            domains += f"  {name} {{\n    selectors [\n{''.join(keys)}    ]\n  }}\n"
    return f"""\
# Only who has logged in gets our signature: an address in the header, or in a PROXY header, proves nothing.
sign_authenticated = true;
sign_local = false;
try_fallback = false;
use_redis = false;
# The domain of the From header as written: DMARC compares that one.
use_domain = "header";
use_esld = false;
allow_username_mismatch = true;
domain {{
{domains}}}
"""


# The image's, which signs our users' mail and checks nothing else of it, with the limit.
_AUTHENTICATED = """\
authenticated {
  priority = high;
  authenticated = yes;
  apply {
    groups_enabled = ["dkim"];
    symbols_enabled = ["RATELIMIT_CHECK"];
  }
}
"""


def _ratelimit(limit: SendingLimit) -> str:
    """A leaky bucket for each account that logs in; mail from elsewhere has no user and no bucket."""
    allowed = f"{limit.per_hour} recipients an hour and {limit.per_day} a day"
    return f"""\
rates {{
  user {{
    bucket {{
      burst = {limit.at_once};
      rate = "{limit.per_day - limit.per_hour} / 23h";
    }}
  }}
}}
# By default it grows with what an account sends, up to ten times, and one recipient called postmaster lifts it (a map; /dev/null is empty).
max_rate_mult = 1;
max_bucket_mult = 1;
whitelisted_rcpts = "/dev/null";
message_func = "return function(task) return task:get_user() .. ' {LIMIT_REACHED} of {allowed}; try again later' end";
"""


def _external_relay(site: Site) -> str:
    """Mail through a relay of ours is judged by who gave it to the relay: SPF, reputation, reverse name."""
    rules = ""
    for relay in site.mail.trusted_relays:
        addresses = ", ".join(f'"{address}"' for address in relay.addresses)
        rules += f'  {_symbol(relay.name)} {{\n    strategy = "ip_map";\n    ip_map = [{addresses}];\n  }}\n'
    return f"enabled = true;\nrules {{\n{rules}}}\n"


def _force_actions(site: Site) -> str:
    """A relay of ours has accepted the mail already: refusing it now would bounce it to an external address, so it is only marked."""
    rules = ""
    for relay in site.mail.trusted_relays:
        symbol = _symbol(relay.name)
        rules += (
            f'  {symbol}_NO_REJECT {{\n    action = "add header";\n    expression = "{symbol}";\n'
            '    require_action = ["reject", "soft reject", "greylist"];\n  }\n'
        )
    return f"rules {{\n{rules}}}\n"


def _symbol(relay: str) -> str:
    return f"TRUSTED_RELAY_{relay.upper()}"
