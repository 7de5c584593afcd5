"""Mailboxes and aliases as the image's files. Passwords are not here: the init container adds them in the pod."""

from components.mail.image import SIEVE_FOLDER
from components.settings.quantity import in_bytes
from components.settings.site import Site


def virtual(site: Site) -> str:
    """postfix-virtual.cf: `alias target[,target…]`, one line each (virtual(5))."""
    return "".join(f"{alias} {','.join(targets)}\n" for alias, targets in site.mail.aliases.items())


def quotas(site: Site) -> str:
    """dovecot-quotas.cf: `mailbox:<bytes>B`, 0 without a limit.

    The image takes the first line with the address anywhere in it, so each mailbox has its own, the shortest first. Without a unit
    docker-mailserver 16 would leave the grace at 10M instead of a tenth.
    """
    boxes = sorted(site.mail.mailboxes.items(), key=lambda item: len(item[0]))
    return "".join(f"{address}:{f'{in_bytes(box.quota)}B' if box.quota else 0}\n" for address, box in boxes)


def sieve_scripts(site: Site) -> dict[str, str]:
    """`sieve/<mailbox>.sieve` by path: Dovecot runs it before the script that the user has."""
    return {f"{SIEVE_FOLDER}/{address}.sieve": f"{box.sieve.rstrip()}\n" for address, box in site.mail.mailboxes.items() if box.sieve}
