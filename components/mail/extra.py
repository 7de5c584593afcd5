"""What a site's own additions override of what this program sets."""

import re
from collections.abc import Iterator

from components.mail import dovecot, postfix, rspamd
from components.mail.image import own_environment
from components.settings.site import Site

_ASSIGNMENT = re.compile(r"^(\w+) *= *(.*)", re.MULTILINE)


def overridden(site: Site) -> Iterator[tuple[str, str]]:
    """Setting and what it replaces, for each key that both of us set."""
    extra = site.mail.extra
    parameters = dict(_ASSIGNMENT.findall(postfix.main_cf(site)))
    lines = dict(_ASSIGNMENT.findall(dovecot.dovecot_cf(site)))
    files = rspamd.overrides(site)
    for area, added, own in (
        ("environment", extra.environment, own_environment(site)),
        ("postfix", extra.postfix, parameters),
        ("dovecot", dict(_ASSIGNMENT.findall(extra.dovecot or "")), lines),
        ("rspamd", extra.rspamd, dict.fromkeys(files, "the whole file")),
    ):
        yield from ((f"mail.extra.{area}.{key}", own[key]) for key in added if key in own)
