"""What to do about an error of the engine that concerns a DNS record."""

import re

from components.dns.live import REMEDIES, remedy

_RECORD = re.compile(r"cloudflare:index/dnsRecord:DnsRecord::(?P<zone>[^/\s\"']+)/(?P<key>[^\s\"'`]+)")
_CODE = re.compile(rf"\b({'|'.join(map(str, REMEDIES))})\b")


def explained(urn: str, message: str) -> str | None:
    """One line of ours in place of the provider's, or None for every other error."""
    record = _RECORD.search(f"{urn} {message}")
    if record is None:
        return None
    zone, key = record["zone"], record["key"]
    if "marked for protection" in message:
        return f"dns.zones.{zone}.release: {key!r} is protected, because mail depends on it; list it, run `up`, then make the change"
    if code := _CODE.search(message):
        return f"{remedy(int(code[1]), zone)} [{zone}/{key}]"
    return None
