"""Starts a new site: asks, reads the cluster, makes the keys, writes a commented stack file, and says what is left to do."""

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import TypeAdapter, ValidationError

from components.checks.registry import read_site
from components.errors import UserError
from components.settings.types import Address, Fqdn, MailAddress, Network, ObjectName
from tools.new_site import SELECTOR, Survey, afterwards, by_hand, commands, contexts, dkim_key, first_account, survey
from tools.offline.stack_template import template
from tools.offline.stackfile import ROOT

NONE = "none"
T = TypeVar("T")


def value_of(kind: Any) -> Callable[[str], Any]:
    """A reader of one value of a settings type; raises ValueError with what to write instead."""

    def read(text: str) -> str:
        try:
            TypeAdapter(kind).validate_python(text)
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ").removeprefix("value is not ")) from None
        return text

    return read


def words(text: str, read: Callable[[str], str]) -> list[str]:
    return [read(word) for word in re.split(r"[\s,]+", text.strip())]


def ask(name: str, question: str, given: str | None, read: Callable[[str], T], default: str | None = None) -> T:
    """The answer to a question: given as an argument, or asked until it can be read. Raises UserError where no one can be asked."""
    if given is None and not sys.stdin.isatty():
        given = default
    if given is None and not sys.stdin.isatty():
        raise UserError(f"{name}: is not given, and there is no terminal to ask on; write {name}=… behind the `make` command")

    def again(text: str) -> T:
        try:
            return read(text.strip())
        except (ValueError, UserError) as error:
            raise click.BadParameter(f"{error} (got {text!r})") from None

    if given is None:
        return click.prompt(question, default=default, value_proc=again)
    try:
        return again(given)
    except click.BadParameter as error:
        raise UserError(f"{name}: {error.message}") from None


def ask_context(given: str | None) -> tuple[str | None, Survey | None]:
    """The cluster's context with what it says of itself; None for a site without a cluster yet."""
    known = contexts()

    def read(text: str) -> tuple[str | None, Survey | None]:
        if text == NONE:
            return None, None
        if known and text not in known:
            raise ValueError(f"choose one of {', '.join(known)}, or {NONE}")
        return text, survey(text)

    return ask("CONTEXT", f"Cluster, as a context of your kubeconfig ({', '.join([*known, NONE])})", given, read)


def ask_nodes(found: Survey | None, given: str | None) -> dict[str, dict[str, str]]:
    """The workers that take mail, with their addresses."""
    if found:
        nodes = found.nodes

        def known(name: str) -> str:
            if "address" not in nodes.get(name, {}):
                raise ValueError(
                    f"write names of nodes that have an address: {', '.join(name for name in nodes if 'address' in nodes[name])}"
                )
            return name

        question, default = "Nodes that take mail from the firewall", " ".join(found.workers)
        return {name: nodes[name] for name in ask("NODES", question, given, lambda text: words(text, known), default)}

    def pair(text: str) -> str:
        name, equals, address = text.partition("=")
        if not equals:
            raise ValueError("write each node as name=address")
        value_of(ObjectName)(name)
        value_of(Address)(address)
        return text

    question = "Nodes that take mail from the firewall, as name=address"
    pairs = ask("NODES", question, given, lambda text: words(text, pair))
    return {name: {"address": address} for name, _, address in (text.partition("=") for text in pairs)}


def cluster_settings(stack: str, context: str | None, found: Survey | None, nodes: Mapping[str, Any], pods: str | None) -> dict[str, Any]:
    settings: dict[str, Any] = {"nodes": dict(nodes)}
    settings |= {"context": context, "uid": found.uid} if found else {"render_to": f"build/provider-{stack}"}
    networks = list(found.pod_networks) if found else []
    question = "Networks of the pods, such as 10.244.0.0/16"
    settings["pod_networks"] = networks or ask("PODS", question, pods, lambda text: words(text, value_of(Network)), "10.244.0.0/16")
    if any("tunnel_address" not in node for node in nodes.values()):
        # Which addresses the other nodes pass connections on with is not known, so only the firewall's own is admitted.
        settings["traffic_policy"] = "Local"
    if not (found and found.external_secrets):
        settings["external_secrets"] = None
    if not (found and found.reloader):
        settings["reloader"] = False
    return settings


@click.command()
@click.option("--stack", required=True, help="name of the new stack")
@click.option("--domain", help="the mail domain")
@click.option("--context", help="kubeconfig context of the cluster; `none`: not yet")
@click.option("--nodes", help="nodes that take mail, separated by blanks; without a cluster as name=address")
@click.option("--pods", help="networks of the pods, where the cluster does not say")
@click.option("--storage-class", help="storage class, where none is the default")
@click.option("--firewall", help="the firewall's address on the nodes' network")
@click.option("--addresses", help="public addresses that mail arrives on")
@click.option("--mailbox", help="the first mailbox")
def init_command(stack: str, **given: str | None) -> None:
    """Writes Pulumi.<stack>.yaml, a DKIM key and a first password, and says what is left to do by hand."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", stack):
        raise UserError(f"STACK: write a name of letters, digits, '-' and '_' (got {stack!r})")
    path, folder = ROOT / f"Pulumi.{stack}.yaml", Path(".secrets") / stack
    for there in (path, ROOT / folder):
        if there.exists():
            raise UserError(f"{there.relative_to(ROOT)}: exists already; write STACK=<another name>, or move it away first")

    domain = ask("DOMAIN", "Mail domain", given["domain"], value_of(Fqdn))
    context, found = ask_context(given["context"])
    cluster = cluster_settings(stack, context, found, ask_nodes(found, given["nodes"]), given["pods"])
    edge = ask("FIREWALL", "Address of the firewall on the nodes' network", given["firewall"], value_of(Address))
    public = ask("ADDRESSES", "Public addresses that mail arrives on", given["addresses"], lambda text: words(text, value_of(Address)))
    mailbox = ask("MAILBOX", "First mailbox", given["mailbox"], value_of(MailAddress), f"me@{domain}")
    storage = {}
    if found and found.storage_classes and not any(found.storage_classes.values()):

        def known(name: str) -> str:
            if name not in found.storage_classes:
                raise ValueError(f"choose one of {', '.join(found.storage_classes)}")
            return name

        storage = {
            "storage_class": ask("STORAGE_CLASS", f"Storage class ({', '.join(found.storage_classes)})", given["storage_class"], known)
        }

    private, published = dkim_key()
    host = f"mail.{domain}"
    values: dict[str, Any] = {
        "domains": {domain: {"dkim": [{"selector": SELECTOR, "public_key": published}]}},
        "cluster": cluster,
        "edge": {"address": edge},
        "tls": {"secret": "mail-tls", "names": [host]},
        "mail": {"mailboxes": {mailbox: {}}, "aliases": {f"postmaster@{domain}": [mailbox]}, **({"storage": storage} if storage else {})},
        "dns": {"hosts": {host: {"addresses": public}}},
        "adopt": ["Namespace/mailserver"],
    }
    site = read_site(json.dumps(values))
    steps = [*by_hand(site, stack, str(folder)), "Then:", *(f"       {line}" for line in commands(stack)), *afterwards(site, stack)]
    write(
        {
            ROOT / folder / f"{domain}.{SELECTOR}.pem": private,
            ROOT / folder / "accounts.json": first_account(mailbox),
            path: template(domain, values, ["To do by hand before the first `up`:", *steps]),
        }
    )
    print(f"{path.name} is written. To do by hand:\n")
    print("\n".join(steps))


def write(files: Mapping[Path, str]) -> None:
    """All of the files or none, and none that is there already; in the folder of secrets for their owner alone."""
    written: list[Path] = []
    try:
        for file, text in files.items():
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = 0o644 if file.parent == ROOT else 0o600
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as stream:
                written.append(file)
                stream.write(text)
    except BaseException as error:
        for file in written:
            file.unlink()
        if isinstance(error, OSError):
            raise UserError(f"{error.filename}: {error.strerror}") from None
        raise
