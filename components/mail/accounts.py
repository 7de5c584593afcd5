"""Mailboxes and aliases as the image's files. Passwords are not here: the init container adds them in the pod."""

from components.mail.image import SIEVE_FOLDER
from components.settings.quantity import in_bytes
from components.settings.site import Site


def virtual(site: Site) -> str:
    """postfix-virtual.cf: `alias target[,target…]`, one line each (virtual(5))."""
    return "".join(f"{alias} {','.join(targets)}\n" for alias, targets in site.mail.aliases.items())


def quotas(site: Site) -> str:
    """dovecot-quotas.cf: `mailbox:bytes`, one line for each mailbox with a limit."""
    return "".join(f"{address}:{in_bytes(box.quota)}\n" for address, box in site.mail.mailboxes.items() if box.quota)


def sieve_scripts(site: Site) -> dict[str, str]:
    """`sieve/<mailbox>.sieve` by path: Dovecot runs it before the script that the user has."""
    return {f"{SIEVE_FOLDER}/{address}.sieve": f"{box.sieve.rstrip()}\n" for address, box in site.mail.mailboxes.items() if box.sieve}
