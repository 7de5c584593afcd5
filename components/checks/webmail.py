"""Rules for the webmail: release, host, login, plugins, database."""

import re
from itertools import pairwise

from components.checks.finding import Area, Found
from components.dns.records import records
from components.settings.site import Site
from components.settings.types import image_tag, is_pinned
from components.settings.webmail import LEAST_PATCH, TESTED_RELEASES
from components.webmail.image import plugin_names
from components.webmail.ingress import LOGIN_ANNOTATIONS, asks_for_login, chain, gate

AREA = Area[Site]("webmail", "Roundcube: release, login, plugins, database")


@AREA.error("image-untested", remedy=f"use {', '.join(TESTED_RELEASES)}.{LEAST_PATCH} or a later patch of it, with Apache")
def image_untested(site: Site) -> Found:
    """The configuration, the start and the hook after it were tried with these releases of the image with Apache."""
    if site.webmail is None:
        return
    release = re.match(r"(\d+\.\d+)\.(\d+)-apache(-nonroot)?$", image_tag(site.webmail.image))
    if release is None or release[1] not in TESTED_RELEASES or int(release[2]) < LEAST_PATCH:
        yield "webmail.image", f"{site.webmail.image} is not of a tested release"


@AREA.warning("image-not-pinned", remedy="pin it by digest: image:tag@sha256:…")
def image_not_pinned(site: Site) -> Found:
    """Anyone who can push the tag again can run code that sees every password that is typed in."""
    if site.webmail and site.production and not is_pinned(site.webmail.image):
        yield "webmail.image", f"{site.webmail.image} is not pinned by digest, so anyone who can push the tag again reads every password"


@AREA.error("certificate", remedy="add the host to tls.names, or set webmail.ingress.secret")
def certificate(site: Site) -> Found:
    """The Ingress serves the mail hosts' certificate unless the settings name another one."""
    if site.webmail and site.webmail.ingress.secret is None and not site.tls.covers(site.webmail.host):
        yield "webmail.host", f"{site.webmail.host} is not in the certificate of the mail hosts"


@AREA.error("issuer-without-secret", remedy="set webmail.ingress.secret")
def issuer_without_secret(site: Site) -> Found:
    """cert-manager would write over the mail hosts' certificate."""
    if site.webmail and site.webmail.ingress.cluster_issuer and site.webmail.ingress.secret is None:
        yield "webmail.ingress.cluster_issuer", "needs a Secret of its own to fill"


@AREA.error("no-login", remedy="set webmail.ingress.auth_middleware, or decide on another webmail.auth")
def no_login(site: Site) -> Found:
    """A login in front of Roundcube is asked for, but nothing asks: the webmail stays closed instead of open to everyone."""
    if site.webmail and asks_for_login(site.webmail) and gate(site.webmail) is None:
        yield (
            "webmail.auth",
            f"{site.webmail.auth}: neither webmail.ingress.auth_middleware nor one of {', '.join(LOGIN_ANNOTATIONS)} is set",
        )


@AREA.error("login-unused", remedy="set webmail.auth to required or public, or remove it")
def login_unused(site: Site) -> Found:
    """A middleware that asks for a login is named, but `auth` says that no one is asked."""
    if site.webmail and site.webmail.ingress.auth_middleware and not asks_for_login(site.webmail):
        yield "webmail.ingress.auth_middleware", f"is not used, because webmail.auth is {site.webmail.auth}"


@AREA.error("no-groups", remedy="add the annotation <prefix>/allowed-groups to webmail.ingress.annotations", consent=True)
def no_groups(site: Site) -> Found:
    """An Authentik that decides by the annotation of allowed groups lets no one in without it."""
    if site.webmail and site.webmail.auth == "required" and "authentik" in (gate(site.webmail) or ""):
        annotations = site.webmail.ingress.annotations
        if not any(name.endswith("/allowed-groups") and groups for name, groups in annotations.items()):
            yield "webmail.ingress.annotations", "names no allowed groups, so Authentik lets no one in"


@AREA.warning("any-pod", remedy="set webmail.ingress.controller_namespace")
def any_pod(site: Site) -> Found:
    """A pod that reaches Roundcube's Service is past the login in front of it, and may write any address into X-Forwarded-For."""
    if site.webmail and site.production and site.webmail.ingress.controller_namespace is None:
        yield "webmail.ingress.controller_namespace", "is not set, so every pod of the cluster reaches Roundcube past its Ingress"


@AREA.note("protected-by")
def protected_by(site: Site) -> Found:
    """What is between the Internet and Roundcube's own login."""
    if site.webmail:
        login = gate(site.webmail)
        before = [*chain(site.webmail), *([login] if login in LOGIN_ANNOTATIONS else [])]
        yield "webmail.auth", f"{site.webmail.auth}: before Roundcube's own login comes {', '.join(before) or 'nothing'}"


@AREA.error("plugin-twice", remedy="remove one")
def plugin_twice(site: Site) -> Found:
    """Two plugins with one folder: the one that is installed last would replace the other."""
    names = sorted(plugin_names(site.webmail)) if site.webmail else []
    for name in {one for one, other in pairwise(names) if one == other}:
        yield "webmail.composer_plugins", f"two plugins would be installed as {name}"


@AREA.error("database-host", remedy="set webmail.database.host, or use sqlite")
def database_host(site: Site) -> Found:
    """A database server has a host."""
    if site.webmail and site.webmail.database.type != "sqlite" and site.webmail.database.host is None:
        yield "webmail.database.host", f"is required for {site.webmail.database.type}"


@AREA.error("database-unused", remedy="set webmail.database.type to mysql or pgsql, or remove it")
def database_unused(site: Site) -> Found:
    """A server is named, but SQLite needs none, and everyone would start with empty settings."""
    if site.webmail and site.webmail.database.type == "sqlite" and site.webmail.database.host:
        yield "webmail.database.host", f"{site.webmail.database.host} is not used by sqlite"


@AREA.warning("no-backup", remedy="set jobs.webmail_backup")
def no_backup(site: Site) -> Found:
    """PGP keys, contacts and settings exist nowhere else."""
    if site.webmail and site.production and site.jobs.webmail_backup is None:
        yield "jobs.webmail_backup", f"is off, so nothing brings back: {', '.join(dict.fromkeys(['database', *site.webmail.claims]))}"


@AREA.warning("no-address", remedy="set dns.web, or add its record where that domain's DNS is")
def no_address(site: Site) -> Found:
    """The host's address is not among the records that this stack declares."""
    if site.webmail and site.dns and not any(record.name == site.webmail.host for record in records(site)):
        yield "webmail.host", f"{site.webmail.host} has no address"
