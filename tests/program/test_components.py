"""The components as parts of another program: two of a kind, providers from outside, outputs."""

import pulumi
import pulumi_kubernetes as k8s
import pytest

from components.base import Context, cluster_provider
from components.dns.component import Dns
from components.jobs.component import Jobs
from components.mail.component import MailServer
from tools.offline.program import run
from tools.offline.stackfile import Stack

STACK = Stack("mailserver", "test", {}, frozenset())


def build(name, context, opts=None):
    mail = MailServer(f"{name}-mail", context, opts)
    Jobs(f"{name}-jobs", context, mail, opts)
    Dns(f"{name}-dns", context, mail.namespace, opts)
    return mail


def test_a_program_can_hold_two_sites(site):
    first, second = site("prod"), site("prod", {"namespace": "post", "dns/zones": ...})

    def program():
        for name, each in {"first": first, "second": second}.items():
            build(name, Context(each, cluster_provider(each, f"{name}-cluster")))

    urns = [resource.urn.rpartition("::")[2] for resource in run(STACK, program).resources]
    assert {urn.partition("-")[0] for urn in urns if not urn.startswith("viktorbarzin.me/")} == {"first", "second"}


@pytest.mark.parametrize("given", ["nothing", "providers", "provider", "parent"])
def test_a_component_is_on_the_cluster_that_it_is_given(site, given):
    dev, used = site("dev"), {}

    def program():
        context, other = Context(dev, cluster_provider(dev)), k8s.Provider("other")
        parent = pulumi.ComponentResource("test:test:Parent", "parent", {}, pulumi.ResourceOptions(providers=[other]))
        options = {
            "nothing": None,
            "providers": pulumi.ResourceOptions(providers=[other]),
            "provider": pulumi.ResourceOptions(provider=other),
            "parent": pulumi.ResourceOptions(parent=parent),
        }
        mail = build("site", context, options[given])
        wanted = context.cluster if given == "nothing" else other
        used["right"] = [part.get_provider("kubernetes:core/v1:Pod") is wanted for part in (mail, mail.namespace, mail.deployment)]

    run(STACK, program)
    assert used["right"] == [True, True, True]


def test_what_a_user_of_the_stack_needs_is_exported(recording):
    exports = recording("prod", {"edge/legacy": {"address": "10.0.20.210"}}).exports
    assert exports["mailHost"] == "mail.viktorbarzin.me"
    assert exports["inClusterHost"] == "mailserver.mailserver.svc.cluster.local"
    assert exports["nodePorts"]["imaps"] == {"proxy": 30128, "health": 30148}
    assert exports["services"] == {"cluster": "mailserver", "proxy": "mailserver-proxy", "legacy": "mailserver-legacy"}
    assert exports["claim"] == "mailserver-data-encrypted"
    assert {"mailserver-accounts", "mailserver-dkim", "tls-secret"} <= set(exports["secrets"])


def test_the_exported_policy_id_is_the_announced_one(recording):
    prod = recording("prod")
    (announced,) = [r.inputs["content"] for r in prod.resources if r.inputs.get("name") == "_mta-sts.viktorbarzin.me"]
    assert announced.endswith(f'; id={prod.exports["policyIds"]["viktorbarzin.me"]}"')


MAIL = "mailserver:mail:MailServer"
KEPT = {
    f"{MAIL}::mail",
    f"{MAIL}$kubernetes:core/v1:Namespace::mail-namespace",
    f"{MAIL}$kubernetes:core/v1:PersistentVolumeClaim::mail-claim-mailserver-data-encrypted",
    f"{MAIL}$kubernetes:apps/v1:Deployment::mail-deployment",
    "mailserver:jobs:Jobs$kubernetes:core/v1:PersistentVolume::jobs-volume-mailserver-backup-host",
    "mailserver:jobs:Jobs$kubernetes:core/v1:PersistentVolumeClaim::jobs-claim-mailserver-backup-host",
}


def known(recording):
    """The URNs that the engine finds in an older state: each resource's own, and those of its aliases by name."""
    for resource in recording.resources:
        prefix = resource.urn.split("::", 2)[2].rpartition("::")[0]
        yield f"{prefix}::{resource.name}"
        yield from (f"{prefix}::{alias['spec']['name']}" for alias in resource.options.get("aliases", []) if "name" in alias["spec"])


def test_what_holds_mail_is_found_in_an_older_state(recording):
    lost = KEPT - set(known(recording("prod")))
    assert lost == set(), "renamed without an alias: the engine would delete it and create it anew"


def test_a_rename_with_an_alias_is_found_in_an_older_state():
    def program(**options):
        return lambda: k8s.core.v1.ConfigMap("new", opts=pulumi.ResourceOptions(**options))

    old = "kubernetes:core/v1:ConfigMap::old"
    assert old not in set(known(run(STACK, program())))
    assert old in set(known(run(STACK, program(aliases=[pulumi.Alias(name="old")]))))
