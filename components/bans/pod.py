"""What runs in the pod that checks the list: the program's arguments, and the configuration of CrowdSec's mirror beside it."""

import json

from components.edge.bans import PATH, SIGN, never_banned
from components.jobs.job import option, python
from components.settings.bans import Bans, Mirror
from components.settings.site import Site

NAME = "mail-bans"
PORT = 8080
MIRROR_PORT = 41412  # the mirror's own default; it listens inside the pod only
MIRROR_LIST = "/list"
MIRROR_CONFIG = "mirror.yaml"
KEY_VARIABLE = "API_KEY"


def command(site: Site, bans: Bans) -> tuple[str, ...]:
    """Of the program that fetches and checks the list, and serves it to the firewall."""
    url = f"http://127.0.0.1:{MIRROR_PORT}{MIRROR_LIST}" if bans.crowdsec else str(bans.url)
    return python(
        "bans.py",
        *("--url", url),
        *option("lapi", bans.crowdsec and bans.crowdsec.lapi),
        *(word for network in never_banned(site, bans) for word in ("--own", network)),
        *("--limit", str(bans.max_entries)),
        *("--port", str(PORT)),
        *("--path", PATH),
        *("--sign", SIGN),
        *("--job", NAME),
        *option("pushgateway", site.jobs.pushgateway),
    )


def mirror_config(mirror: Mirror) -> str:
    """Of cs-blocklist-mirror, in JSON, which is YAML; it puts the key in from its environment."""
    config = {
        "config_version": "v1.0",
        "crowdsec_config": {
            "lapi_key": f"${{{KEY_VARIABLE}}}",
            "lapi_url": mirror.lapi,
            "update_frequency": "10s",
            "scopes": ["Ip", "Range"],  # others are about countries or users
        },
        "blocklists": [{"format": "plain_text", "endpoint": MIRROR_LIST, "authentication": {"type": "none"}}],
        "listen_uri": f"127.0.0.1:{MIRROR_PORT}",
        "log_media": "stdout",
        "log_level": "info",
    }
    return json.dumps(config, indent=2) + "\n"
