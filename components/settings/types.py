"""The kinds of values that settings are made of; each says in one sentence what would be right."""

import re
from collections.abc import Collection
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, IPvAnyAddress, IPvAnyNetwork


class Model(BaseModel):
    """Base of every settings model: frozen, no unknown keys, no guessing between types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Address = IPvAnyAddress
Network = IPvAnyNetwork

_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_LOCAL_PART = re.compile(r"[a-z0-9!$&'*=?^_~.+-]{1,64}")  # RFC 5321 dot-string less what Postfix maps, paths and Dovecot read as syntax
_QUANTITY = re.compile(r"(\d+)(m|Ki|Mi|Gi|Ti)?")
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, None: 1}
_IMAGE = re.compile(r"[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)+:(?P<tag>[\w.-]{1,128})(?P<digest>@sha256:[0-9a-f]{64})?")
_OBJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


def is_dns_name(value: str) -> bool:
    """Whether a text is one or more lower-case labels of a host's name (RFC 1123), such as a domain or a DKIM selector."""
    return len(value) <= 253 and all(_LABEL.fullmatch(label) for label in value.split("."))


def covers(names: Collection[str], host: str) -> bool:
    """Whether a certificate with these names is one for the host (RFC 9525: a `*` stands for one label)."""
    return host in names or f"*.{host.partition('.')[2]}" in names


def _fqdn(value: str) -> str:
    if "." not in value or not is_dns_name(value):
        raise ValueError("write a full domain name in lower case, without a trailing dot, international names in punycode (xn--…)")
    return value


def _mail_address(value: str) -> str:
    local, at, domain = value.rpartition("@")
    if not at or not _LOCAL_PART.fullmatch(local) or local.startswith(".") or local.endswith(".") or ".." in local:
        raise ValueError("write an address like user@example.org in lower case")
    _fqdn(domain)
    return value


def _alias_name(value: str) -> str:
    if value.startswith("@"):
        return "@" + _fqdn(value[1:])
    return _mail_address(value)


def _quantity(value: str) -> str:
    if not _QUANTITY.fullmatch(value):
        raise ValueError("write a Kubernetes quantity such as 512Mi, 5Gi or 250m")
    return value


def _image(value: str) -> str:
    if not _IMAGE.fullmatch(value):
        raise ValueError("write registry/repository:tag, with @sha256:… behind it to pin the very bytes")
    return value


def _object_name(value: str) -> str:
    if not _OBJECT_NAME.fullmatch(value):
        raise ValueError("write a Kubernetes object name: lower-case letters, digits, '-' and '.'")
    return value


Fqdn = Annotated[str, AfterValidator(_fqdn)]
MailAddress = Annotated[str, AfterValidator(_mail_address)]
AliasName = Annotated[str, AfterValidator(_alias_name)]
Quantity = Annotated[str, AfterValidator(_quantity)]
Image = Annotated[str, AfterValidator(_image)]
ObjectName = Annotated[str, AfterValidator(_object_name)]
Port = Annotated[int, Field(ge=1, le=65535)]
Percent = Annotated[int, Field(ge=1, le=99)]


def quantity_bytes(quantity: str) -> int:
    """Bytes of a Quantity such as `5Gi` (binary units, as Kubernetes counts storage and memory)."""
    match = _QUANTITY.fullmatch(quantity)
    if match is None or match[2] == "m":
        raise ValueError(f"{quantity} is not a number of bytes")
    return int(match[1]) * _UNITS[match[2]]


def domain_of(address: str) -> str:
    """The domain of a mail address or of a catch-all `@domain`."""
    return address.rpartition("@")[2]


def image_tag(image: str) -> str:
    match = _IMAGE.fullmatch(image)
    if match is None:
        raise ValueError(f"{image} has no tag")
    return match["tag"]


def is_pinned(image: str) -> bool:
    """Whether the image is named by digest, so that nobody can put other bytes behind the tag."""
    match = _IMAGE.fullmatch(image)
    return match is not None and match["digest"] is not None
