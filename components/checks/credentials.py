"""Rules for credentials: the secret store, and Secrets that are made by hand."""

from collections.abc import Iterable, Iterator
from typing import Any

from components.checks.finding import Area, Found
from components.mail.secrets import handmade_secrets
from components.settings.secrets import StoreKey
from components.settings.site import Site
from components.settings.types import Model

AREA = Area[Site]("credentials", "Secrets and the secret store")


@AREA.error("store-without-external-secrets", remedy="set cluster.external_secrets, or leave it out and make the Secrets yourself")
def store_without_external_secrets(site: Site) -> Found:
    """Only external-secrets reads the store."""
    if site.secret_store is not None and site.cluster.external_secrets is None:
        yield "secret_store", "needs external-secrets in the cluster"


@AREA.error("source-without-store", remedy="set secret_store")
def source_without_store(site: Site) -> Found:
    """A source is a place in the store, so there must be one."""
    for setting in _sources(site) if site.secret_store is None else ():
        yield setting, "names a source, but secret_store is not set"


def _sources(value: Any, setting: str = "") -> Iterator[str]:
    """Every setting that names a place in the secret store."""
    parts: Iterable[tuple[object, Any]] = ()
    if isinstance(value, StoreKey):
        yield setting.removesuffix(".source")
    elif isinstance(value, Model):
        parts = ((name, getattr(value, name)) for name in type(value).model_fields)
    elif isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, tuple):
        parts = ((getattr(entry, "selector", index), entry) for index, entry in enumerate(value))
    for name, part in parts:
        yield from _sources(part, f"{setting}.{name}" if setting else str(name))


@AREA.error("probe-without-accounts", remedy="set mail.accounts.source too")
def probe_without_accounts(site: Site) -> Found:
    """The probe's Secret is made from two entries of the store: the relay's API key, and the mailbox's password of the accounts map."""
    if (probe := site.jobs.probe) and probe.credentials.source and not site.mail.accounts.source:
        yield "jobs.probe.credentials", "takes the mailbox's password from the accounts map, which has no source"


@AREA.note("made-by-hand", remedy="create them before `up`; README.md says what is in them")
def made_by_hand(site: Site) -> Found:
    """Pods wait for Secrets that neither this stack nor external-secrets creates."""
    secrets = ", ".join(f"{name} ({', '.join(keys)})" for name, keys in handmade_secrets(site).items())
    yield "", f"this stack does not create these Secrets: {secrets}"
