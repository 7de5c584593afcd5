"""In which order an `up` makes things and a `destroy` takes them away: what waits for what, through any number of steps."""

from collections.abc import Callable, Iterator

import pytest

from tests.program.golden import ROLLED_BACK
from tools.offline.program import Recording, Resource

MAIL_SERVER, PROXY_SERVICE = "Deployment/mailserver", "Service/mailserver-proxy"
HAPROXY, REDIRECTS = "HaproxySet/edge-haproxy", "RuleSet/edge-rules"
LEGACY = "Service/mailserver-legacy"


class Order:
    """What each resource waits for. A `destroy` goes the other way: nothing goes while something that waited for it is there."""

    def __init__(self, recording: Recording) -> None:
        self._resources = {resource.urn: resource for resource in recording.resources}

    def waits_for(self, name: str) -> set[str]:
        """Everything that is there before `Kind/name` is begun, by the same names."""
        (start,) = [urn for urn, resource in self._resources.items() if _name(resource) == name]
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            resource = self._resources[waiting.pop()]
            for urn in [*resource.options.get("dependencies", []), *([resource.parent] if resource.parent else [])]:
                if urn not in seen:
                    seen.add(urn)
                    waiting.append(urn)
        return {_name(self._resources[urn]) for urn in seen}

    def names(self, kind: str) -> Iterator[str]:
        return (_name(resource) for resource in self._resources.values() if _name(resource).startswith(f"{kind}/"))


def _name(resource: Resource) -> str:
    """`Kind/name` of a Kubernetes object, `Type/name` of all else; a DNS record by its key within the zone."""
    if resource.type.startswith("kubernetes:"):
        return f"{resource.inputs['kind']}/{resource.inputs['metadata']['name']}"
    return f"{resource.type.rpartition(':')[2]}/{resource.name.rpartition('/')[2]}"


@pytest.fixture
def order(recording: Callable[..., Recording]) -> Callable[..., Order]:
    return lambda *arguments: Order(recording(*arguments))


def test_mail_is_led_to_haproxy_after_haproxy_has_servers_and_the_servers_have_mail(order):
    prod = order("prod")
    assert HAPROXY in prod.waits_for(REDIRECTS)
    assert {MAIL_SERVER, PROXY_SERVICE} <= prod.waits_for(HAPROXY)


def test_the_way_back_waits_for_the_legacy_service_and_for_nothing_of_the_path_that_is_broken(order):
    back = order("prod", ROLLED_BACK)
    assert LEGACY in back.waits_for(REDIRECTS)
    assert not {HAPROXY, MAIL_SERVER, PROXY_SERVICE} & back.waits_for(REDIRECTS)


def test_haproxy_itself_waits_for_the_mail_server_whatever_mail_is_led_to(order):
    assert {MAIL_SERVER, PROXY_SERVICE} <= order("prod", ROLLED_BACK).waits_for(HAPROXY)


def test_the_way_forward_again_waits_for_haproxy_while_the_legacy_service_stays(order):
    prepared = order("prod", {"edge/legacy": ROLLED_BACK["edge/legacy"]})
    assert HAPROXY in prepared.waits_for(REDIRECTS)
    assert LEGACY in prepared.names("Service")


def test_no_pod_is_begun_before_the_policy_that_shuts_its_proxy_ports(order):
    assert "NetworkPolicy/mailserver" in order("prod").waits_for(MAIL_SERVER)


def test_the_mail_server_is_begun_after_all_that_its_pod_mounts(order):
    needed = {f"ExternalSecret/mailserver-{name}" for name in ("accounts", "aliases", "relay", "dkim")}
    needed |= {"ConfigMap/mailserver-config", "ConfigMap/mailserver-scripts"}
    assert needed | {"PersistentVolumeClaim/mailserver-data-encrypted"} <= order("prod").waits_for(MAIL_SERVER)
    assert "PriorityClass/mailserver-100000" in order("dev").waits_for(MAIL_SERVER)


def test_no_job_is_begun_before_its_programs_credentials_and_volumes(order):
    prod = order("prod")
    for job in prod.names("CronJob"):
        assert "ConfigMap/mail-jobs" in prod.waits_for(job)
    backup = prod.waits_for("CronJob/mailserver-backup")
    assert {"PersistentVolume/mailserver-backup-host", "ExternalSecret/mailserver-backup-key"} <= backup
    assert {"ExternalSecret/mailserver-heartbeats", "ExternalSecret/mailserver-probe-secrets"} <= prod.waits_for(
        "CronJob/email-roundtrip-monitor"
    )


def test_a_policy_is_announced_after_the_server_that_serves_it(order):
    prod = order("prod")
    (announcement,) = [name for name in prod.names("DnsRecord") if name.endswith("/mta-sts")]
    assert {"Deployment/mta-sts", "Service/mta-sts", "Ingress/mta-sts-tls-secret"} <= prod.waits_for(announcement)
    others = [name for name in prod.names("DnsRecord") if name != announcement]
    assert len(others) > 10
    assert not [name for name in others if "Deployment/mta-sts" in prod.waits_for(name)]


def test_everything_in_the_namespace_waits_for_it_and_so_goes_before_it(order):
    prod = order("prod", ROLLED_BACK)
    for kind in ("Deployment", "CronJob", "Service", "ConfigMap", "ExternalSecret", "PersistentVolumeClaim", "NetworkPolicy", "Ingress"):
        for name in prod.names(kind):
            assert "Namespace/mailserver" in prod.waits_for(name), name


def test_a_destroy_takes_mail_away_from_haproxy_before_it_takes_haproxy_or_the_server(order):
    """The same edges read backwards; stated on their own, because a `destroy` with a lost edge is an outage that was not asked for."""
    prod = order("prod")
    assert {HAPROXY, MAIL_SERVER, PROXY_SERVICE, "PersistentVolumeClaim/mailserver-data-encrypted"} <= prod.waits_for(REDIRECTS)
    for name in ("Service/mailserver", MAIL_SERVER, HAPROXY):
        assert REDIRECTS not in prod.waits_for(name), name


def test_a_destroy_after_a_roll_back_takes_the_redirects_before_the_legacy_service(order):
    back = order("prod", ROLLED_BACK)
    assert LEGACY in back.waits_for(REDIRECTS)
    assert REDIRECTS not in back.waits_for(LEGACY)
