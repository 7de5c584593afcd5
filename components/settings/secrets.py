"""Where credentials come from. None of them passes through Pulumi: these are names and paths only."""

import re
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from components.settings.types import Fqdn, Model, ObjectName


class StoreKey(Model):
    """One value in the secret store: `property` of the entry `key` (Vault KV: a field of a secret)."""

    key: str = Field(min_length=1, description="the entry's name, below the store's own path")
    property: str = Field(min_length=1, description="the field in it")


class SecretStore(Model):
    """The (Cluster)SecretStore of external-secrets that reaches Vault, or whatever keeps the credentials."""

    name: ObjectName = Field(description="the store object's name")
    kind: str = Field(default="ClusterSecretStore", description="or SecretStore, in our namespace")
    refresh_interval: str = Field(default="15m", description="how often external-secrets reads the store again (Go duration)")


def secret_name(default: Any) -> Any:
    """The `name` of a Secret: each kind has a default of its own, which holds as well where only the source is set."""
    return Field(default=default, description="name of the Kubernetes Secret in the stack's namespace")


class Secret(Model):
    """A Kubernetes Secret. With a source, an ExternalSecret creates it; without, it must exist already. Each kind sets `name`."""

    name: ObjectName = secret_name(...)
    source: StoreKey | None = Field(
        default=None, description="where the value is kept in the secret store; null: the Secret is made by hand"
    )


def _public_key(value: str) -> str:
    """Base64 of the key: the value of `p=`, from a whole DKIM record or alone."""
    found = re.search(r"(?:^|;)\s*p=([^;]*)", value)
    key = re.sub(r"\s", "", found[1] if found else value)
    if len(key) % 4 or not re.fullmatch(r"[A-Za-z0-9+/]{40,}={0,2}", key):
        raise ValueError("write the public key as base64, or the whole record `v=DKIM1; … p=…`")
    return key


class DkimKey(Model):
    """A signing key: its selector, its private half (PEM) in the secret store, and how far it is in its life.

    A key is published first, signs once every verifier can find it, retires while mail that it signed is still under way,
    and is revoked (an empty `p=`) before it goes. A new key is a new selector.
    """

    selector: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="one DNS label")
    source: StoreKey | None = Field(default=None, description="where the private key (PEM) stands in the store")
    stage: Literal["published", "signing", "retiring", "revoked"] = Field(
        default="signing", description="in DNS only; in use; in DNS until its last mail has arrived; withdrawn"
    )
    public_key: Annotated[str, AfterValidator(_public_key)] | None = Field(
        default=None, description="the public half as it stands in DNS: the whole record or its p=; needed when dns is set"
    )
    published_on: date | None = Field(default=None, description="when the record went live; null: long ago")
    retired_on: date | None = Field(default=None, description="the last day that it signed")

    @property
    def signs(self) -> bool:
        return self.stage == "signing"

    def secret_key(self, domain: Fqdn) -> str:
        """The key of the DKIM Secret that holds this private key, and its file name in the pod."""
        return f"{domain}.{self.selector}"
