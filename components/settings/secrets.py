"""Where credentials come from. None of them passes through Pulumi: these are names and paths only."""

from typing import Annotated, Any, Literal

from pydantic import Field

from components.settings.types import Model, ObjectName, text

# Go's time.ParseDuration, as external-secrets reads it.
_DURATION = r"([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+"


class StoreKey(Model):
    """One value in the secret store: `property` of the entry `key` (Vault KV: a field of a secret)."""

    key: str = Field(min_length=1, description="name of the entry, below the store's own path", examples=["mail"])
    property: str = Field(min_length=1, description="field of the entry", examples=["accounts"])


class SecretStore(Model):
    """The SecretStore of external-secrets that reads Vault or another secret manager."""

    name: ObjectName = Field(description="name of the store object", examples=["vault"])
    kind: Literal["ClusterSecretStore", "SecretStore"] = Field(
        default="ClusterSecretStore", description="kind of the store object; a SecretStore is looked for in the stack's namespace"
    )
    refresh_interval: Annotated[str, *text("duration", _DURATION, "write a Go duration such as 15m, 1h or 1h30m")] = Field(
        default="15m", description="how often external-secrets reads the store again"
    )


def secret_name(default: Any) -> Any:
    """The `name` of a Secret: each kind has a default of its own, which also holds where only the source is set."""
    return Field(default=default, description="name of the Kubernetes Secret in the stack's namespace")


class Secret(Model):
    """A Kubernetes Secret. With a source, an ExternalSecret creates it; without, it must exist already. Each kind sets `name`."""

    name: ObjectName = secret_name(...)
    source: StoreKey | None = Field(
        default=None,
        description="where the secret store keeps the value; null: you create the Secret",
        examples=[{"key": "mail", "property": "field"}],
    )
