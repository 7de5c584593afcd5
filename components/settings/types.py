"""The kinds of values that settings are made of. Each checks itself, and its message says what to write instead."""

import re
from collections.abc import Collection
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, IPvAnyAddress, IPvAnyNetwork, WithJsonSchema

from components.listeners import LISTENERS


class Model(BaseModel):
    """Base of every settings model: frozen, no unknown keys, no conversion between types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
_FQDN = rf"{LABEL}(\.{LABEL})+"
# RFC 5321 dot-string less what Postfix maps, paths and Dovecot read as syntax.
_LOCAL_PART = r"(?!\.)(?!.*\.\.)[a-z0-9!$&'*=?^_~.+-]{1,64}(?<!\.)"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_IMAGE = re.compile(rf"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+:({_TAG})(@sha256:[0-9a-f]{{64}})?")
_OBJECT_NAME = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"


def text(name: str, pattern: str, remedy: str) -> tuple[AfterValidator, WithJsonSchema]:
    """Validator and JSON Schema of a text that must match as a whole; `name` is what the documentation calls it."""
    matches = re.compile(pattern).fullmatch

    def check(value: str) -> str:
        if not matches(value):
            raise ValueError(remedy)
        return value

    return AfterValidator(check), WithJsonSchema({"title": name, "type": "string", "pattern": f"^(?:{pattern})$"})


def choice(names: Collection[str]) -> tuple[AfterValidator, WithJsonSchema]:
    """Validator and JSON Schema of one of several names that are written down elsewhere."""

    def check(value: str) -> str:
        if value not in names:
            raise ValueError(f"write one of {', '.join(names)}")
        return value

    return AfterValidator(check), WithJsonSchema({"type": "string", "enum": list(names)})


def _no_star(value: str) -> str:
    if value.startswith("*@"):
        raise ValueError(f"write {value[1:]} for a catch-all; a * is an ordinary character of an address and matches nothing else")
    return value


Address = Annotated[IPvAnyAddress, WithJsonSchema({"title": "IP address", "type": "string", "pattern": r"^[0-9a-fA-F:.]+$"})]
Network = Annotated[IPvAnyNetwork, WithJsonSchema({"title": "network", "type": "string", "pattern": r"^[0-9a-fA-F:.]+(/[0-9]+)?$"})]
Fqdn = Annotated[
    str,
    *text(
        "domain name",
        rf"(?!.{{254}})(?!.*\.[0-9]+$){_FQDN}",
        "write a full domain name in lower case, without a trailing dot, international names in punycode (xn--…)",
    ),
]
CertificateName = Annotated[
    str,
    *text(
        "certificate name",
        rf"(\*\.)?(?!.{{254}}){LABEL}(\.{LABEL})*",
        "write a name such as mail.example.org or *.example.org, in lower case",
    ),
]
MailAddress = Annotated[
    str, *text("mail address", rf"{_LOCAL_PART}@(?!.{{254}}){_FQDN}", "write an address like user@example.org in lower case")
]
AliasName = Annotated[
    str,
    AfterValidator(_no_star),
    *text(
        "mail address or @domain",
        rf"({_LOCAL_PART})?@(?!.{{254}}){_FQDN}",
        "write an address like user@example.org, or @example.org for a catch-all, in lower case",
    ),
]
Image = Annotated[str, *text("image", _IMAGE.pattern, "write registry/repository:tag, followed by @sha256:… to pin the exact image")]
ObjectName = Annotated[
    str, *text("Kubernetes name", _OBJECT_NAME, "write a Kubernetes object name: lower-case letters, digits, '-' and '.'")
]
ServiceName = Annotated[str, *choice([listener.name for listener in LISTENERS])]
UserServiceName = Annotated[str, *choice([listener.name for listener in LISTENERS if listener.for_users])]
Port = Annotated[int, Field(ge=1, le=65535)]
Percent = Annotated[int, Field(ge=1, le=99)]


def covers(names: Collection[str], host: str) -> bool:
    """Whether a certificate with these names is valid for the host (RFC 9525: a `*` matches one label)."""
    return host in names or f"*.{host.partition('.')[2]}" in names


def domain_of(address: str) -> str:
    """The domain of a mail address or of a catch-all `@domain`."""
    return address.rpartition("@")[2]


def image_tag(image: Image) -> str:
    match = _IMAGE.fullmatch(image)
    if match is None:
        raise ValueError(f"{image} has no tag")
    return match[3]


def is_pinned(image: Image) -> bool:
    """Whether the image is named by its digest, so that no one can replace what the tag refers to."""
    match = _IMAGE.fullmatch(image)
    return match is not None and match[4] is not None
