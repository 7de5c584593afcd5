"""Names and contents in the one form that Cloudflare stores, so that a second preview finds nothing to change.

Names: full, lower case, punycode, without the trailing dot. TXT: quoted character-strings of at most 255 octets (RFC 1035
section 3.3), with `"` and `\\` escaped (section 5.1). The API normalises host names by itself but not TXT, which its provider
then wants to change at every preview (cloudflare/terraform-provider-cloudflare#6238).
"""

import re
from ipaddress import ip_address

import idna

STRING_OCTETS = 255

_ESCAPE = re.compile(r'(["\\])')
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r"\\(\d{3}|.)", re.DOTALL)


def name(text: str) -> str:
    """A host name in canonical form. Labels with `_` or `*`, which IDNA does not know, are only lowered.

    Raises ValueError for a label that cannot be converted.
    """
    labels = text.strip().rstrip(".").lower().split(".")
    return ".".join(label if label.isascii() else idna.encode(label, uts46=True).decode() for label in labels)


def txt(value: str) -> str:
    """The content of a TXT record that says `value`. Raises ValueError for what is not printable ASCII."""
    if not value.isascii() or (value and not value.isprintable()):
        raise ValueError("a TXT record here holds printable ASCII only")
    chunks = [value[start : start + STRING_OCTETS] for start in range(0, len(value), STRING_OCTETS)] or [""]
    return " ".join('"' + _ESCAPE.sub(r"\\\1", chunk) + '"' for chunk in chunks)


def txt_strings(content: str) -> list[str]:
    """The character-strings of a TXT record's content; one without quotes is a single string, as Cloudflare takes it."""
    if not content.lstrip().startswith('"'):
        return [content]
    return [_ESCAPED.sub(lambda match: chr(int(match[1])) if match[1].isdigit() else match[1], part) for part in _STRING.findall(content)]


def txt_value(content: str) -> str:
    """What a TXT record says: its strings joined without a space, as every reader does (RFC 7208 section 3.3)."""
    return "".join(txt_strings(content))


def canonical(kind: str, content: str) -> str:
    """The content of any record of the type `kind`, in the form that a record made here has."""
    if kind == "TXT":
        return txt(txt_value(content))
    if kind in {"CNAME", "MX"}:
        return name(content)
    if kind in {"A", "AAAA"}:
        return str(ip_address(content.strip()))
    return content.strip()
