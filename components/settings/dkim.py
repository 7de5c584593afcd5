"""DKIM keys and their life: published, signing, retiring, revoked."""

import re
from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from components.settings.secrets import StoreKey
from components.settings.types import LABEL, Fqdn, Model, text


def _public_key(value: str) -> str:
    """Base64 of the key: the value of `p=`, from a whole DKIM record or alone."""
    found = re.search(r"(?:^|;)\s*p=([^;]*)", value)
    key = re.sub(r"\s", "", found[1] if found else value)
    if len(key) % 4 or not re.fullmatch(r"[A-Za-z0-9+/]{40,}={0,2}", key):
        raise ValueError("write the public key as base64, or the whole record `v=DKIM1; … p=…`")
    return key


class DkimKey(Model):
    """A signing key: its selector, its private half (PEM) in the secret store, and its stage.

    A key is published first, signs once every verifier can find it, retires while mail that it signed is still in transit,
    and is revoked (an empty `p=`) before it is removed. A new key needs a new selector.
    """

    selector: Annotated[str, *text("DNS label", LABEL, "write one DNS label of lower-case letters, digits and '-'")] = Field(
        description="selector, one DNS label", examples=["mail"]
    )
    source: StoreKey | None = Field(
        default=None,
        description="where the secret store keeps the private key (PEM); null: you put it into the Secret mail.dkim.name",
        examples=[{"key": "mail", "property": "dkim"}],
    )
    stage: Literal["published", "signing", "retiring", "revoked"] = Field(
        default="signing",
        description="published: in DNS only; signing: in use; retiring: in DNS until its last mail has arrived; revoked: empty record",
    )
    public_key: Annotated[str, AfterValidator(_public_key)] | None = Field(
        default=None,
        description="public key as base64, or the whole TXT record; required where dns is set",
        examples=["v=DKIM1; k=rsa; p=MIIBIjANBgkq…"],
    )
    published_on: date | None = Field(
        default=None, description="day on which the record was published; null: long ago", examples=["2026-01-31"]
    )
    retired_on: date | None = Field(default=None, description="last day on which the key signed", examples=["2026-02-28"])

    @property
    def signs(self) -> bool:
        return self.stage == "signing"

    def secret_key(self, domain: Fqdn) -> str:
        """The key of the DKIM Secret that holds this private key, and its file name in the pod."""
        return f"{domain}.{self.selector}"
