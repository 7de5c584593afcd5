"""What to do about an error of the engine that concerns a DNS record, in one line instead of the provider's many."""

import re

from components.dns.live import REMEDIES, remedy

_RECORD = re.compile(r"cloudflare:index/dnsRecord:DnsRecord::(?P<zone>[^/\s\"']+)/(?P<key>[^\s\"'`]+)")
_HOOK = re.compile(r'before hook "dns-[^"]*" failed: (.+)', re.DOTALL)
_CODE = re.compile(rf"\b({'|'.join(map(str, REMEDIES))})\b")


def dns_advice(urn: str, message: str) -> str | None:
    """The setting to blame and what to do; None for what does not concern a record, or is not known."""
    record = _RECORD.search(f"{urn} {message}")
    if record is None:
        return None
    zone, key = record["zone"], record["key"]
    if "To unprotect" in message:  # in what it says of deletions and of replacements
        return f"dns.zones.{zone}.release: {key!r} is protected, because mail depends on it; list it, run `up`, then make the change"
    if refusal := _HOOK.search(message):  # ours already
        return refusal[1].strip()
    code = _CODE.search(message)
    return f"{remedy(int(code[1]), zone)} [{zone}/{key}]" if code else None
