"""What the program declares for DNS: records at Cloudflare, and the policy server behind MTA-STS."""

import json
import subprocess
import sys
from collections.abc import Callable

import kubernetes_validate
import pulumi
import pytest
from jsonschema import Draft202012Validator

from components.dns.mta_sts import policy_id, policy_text
from components.dns.records import records
from components.settings.site import KEY, Site
from tests.conftest import settings
from tests.standins.cloudflare_openapi import request
from tests.standins.cloudflare_plugin import body
from tools.offline.program import Recording, Resource, run_main, run_once
from tools.offline.stackfile import Stack

KUBERNETES = "1.30"
ZONE_ID = "fd2c5dd4efe8fe38958944e74d0ced6d"
ZONE = "dns/zones/viktorbarzin.me"
RECORD = "cloudflare:index/dnsRecord:DnsRecord"


def cloudflare(recording: Recording) -> dict[str, Resource]:
    return {resource.name.partition("/")[2]: resource for resource in recording.resources if resource.type == RECORD}


def server(recording: Recording) -> dict[str, Resource]:
    area = [resource for resource in recording.resources if resource.parent and resource.parent.endswith("::dns")]
    return {resource.inputs["kind"]: resource for resource in area if resource.type.startswith("kubernetes:")}


def test_every_record_is_declared_as_the_zone_file_has_it(recording: Callable[..., Recording], site: Callable[..., Site]):
    declared = cloudflare(recording("prod"))
    expected = {record.key: record for record in records(site("prod"))}
    assert declared.keys() == expected.keys()
    for key, record in expected.items():
        inputs = declared[key].inputs
        assert (inputs["name"], inputs["type"], inputs["zoneId"], inputs["ttl"]) == (record.name, record.type, ZONE_ID, 1)
        assert inputs.get("priority") == record.priority
        if record.type == "SRV":
            assert inputs["data"] == dict(record.data) and "content" not in inputs
        else:
            assert inputs["content"] == record.content and "data" not in inputs


def test_every_request_is_one_that_the_api_publishes(recording: Callable[..., Recording]):
    several = {"domains/viktorbarzin.me/dns/caa": [{"tag": "issue", "value": "letsencrypt.org", "account": "https://a.example/1"}]}
    several |= {"dns/hosts/mail.viktorbarzin.me/tlsa": ["ab" * 32], f"{ZONE}/dnssec": True}
    declared = cloudflare(recording("prod", several))
    assert {resource.inputs["type"] for resource in declared.values()} >= {"A", "AAAA", "CNAME", "TXT", "MX", "SRV", "CAA", "TLSA"}
    for resource in declared.values():
        Draft202012Validator(request(resource.inputs["type"])).validate(body(resource.inputs))


def test_no_mail_host_goes_through_the_proxy(recording: Callable[..., Recording]):
    proxied = {key for key, resource in cloudflare(recording("prod", {"dns/web/proxied": True})).items() if resource.inputs["proxied"]}
    assert proxied == {"mta-sts-web", "mta-sts-aaaa-2001-470-6e-43d--2"}


def test_a_set_ttl_holds_for_all_but_proxied_records(recording: Callable[..., Recording]):
    declared = cloudflare(recording("prod", {"dns/web/proxied": True, "dns/ttl": 600}))
    assert {key: resource.inputs["ttl"] for key, resource in declared.items() if resource.inputs["ttl"] != 600} == {
        "mta-sts-web": 1,
        "mta-sts-aaaa-2001-470-6e-43d--2": 1,
    }


def test_a_record_is_adopted_by_its_id(recording: Callable[..., Recording]):
    others = dict.fromkeys(("dmarc", "mta-sts", "mx-mail.viktorbarzin.me", "mx-mx2.viktorbarzin.me"))
    declared = cloudflare(recording("prod", {"dns/zones/viktorbarzin.me/adopt": others | {"spf": "a" * 32}}))
    imported = {key: resource.options["importId"] for key, resource in declared.items() if "importId" in resource.options}
    assert imported == {"spf": f"{ZONE_ID}/{'a' * 32}"}


def test_credentials_with_which_no_live_zone_is_read_are_refused(monkeypatch: pytest.MonkeyPatch):
    def refusal(**config: str) -> str:
        with pytest.raises(pulumi.RunError) as error:
            run_once(Stack("mailserver", "prod", {KEY: json.dumps(settings("prod"))} | config, frozenset()), run_main, preview=False)
        return str(error.value)

    for name in ("apiToken", "apiKey"):
        assert refusal(**{f"cloudflare:{name}": "x" * 40}).startswith(f"cloudflare:{name}: remove it, and set CLOUDFLARE_API_TOKEN")
    monkeypatch.setenv("CLOUDFLARE_API_KEY", "x" * 37)
    assert refusal().startswith("CLOUDFLARE_API_KEY: remove it")


def test_what_mail_depends_on_is_protected_until_it_is_released_by_name(recording: Callable[..., Recording], site: Callable[..., Site]):
    def protected(changes: dict) -> set[str]:
        return {key for key, resource in cloudflare(recording("prod", changes)).items() if resource.options.get("protect")}

    everything = {record.key for record in records(site("prod")) if record.carries_mail}
    assert protected({}) == everything
    assert protected({"dns/zones/viktorbarzin.me/release": ["mx-mx2.viktorbarzin.me"]}) == everything - {"mx-mx2.viktorbarzin.me"}
    assert protected({"dns/zones/viktorbarzin.me/release": ["*"]}) == set()
    assert protected({"production": False}) == everything


def test_only_a_web_host_is_deleted_before_it_is_replaced_and_as_a_whole(recording: Callable[..., Recording]):
    declared = cloudflare(recording("prod"))
    first, second = "mta-sts-web", "mta-sts-aaaa-2001-470-6e-43d--2"
    assert {key for key, resource in declared.items() if resource.options.get("deleteBeforeReplace")} == {first, second}
    assert declared[first].options["replaceOnChanges"] == ["content"]
    assert declared[second].options["replaceWith"] == [declared[first].urn]
    assert declared[first].urn in declared[second].options["dependencies"]


def test_live_state_moves_to_the_new_keys(recording: Callable[..., Recording]):
    aliases = cloudflare(recording("prod"))["mail:a-176.12.22.76"].options["aliases"]
    assert "viktorbarzin.me/mail:a" in [alias["spec"].get("name") for alias in aliases]


def test_an_enforced_policy_is_announced_before_a_new_mail_host(recording: Callable[..., Recording]):
    def waiting(changes: dict) -> set[str]:
        declared = cloudflare(recording("prod", changes))
        return {key for key, resource in declared.items() if declared["mta-sts"].urn in resource.options.get("dependencies", [])}

    policy = "domains/viktorbarzin.me/dns/mta_sts"
    assert waiting({}) == set()
    enforced = {f"{policy}/mode": "enforce", f"{policy}/testing_since": "2026-01-01"}
    assert waiting(enforced) == {"mx-mail.viktorbarzin.me", "mx-mx2.viktorbarzin.me"}


def test_another_policy_is_another_pod_and_another_id(recording: Callable[..., Recording]):
    def digest_and_id(changes: dict) -> tuple[str, str]:
        run = recording("prod", changes)
        template = server(run)["Deployment"].inputs["spec"]["template"]
        return template["metadata"]["annotations"]["checksum/config"], cloudflare(run)["mta-sts"].inputs["content"]

    before = digest_and_id({})
    after = digest_and_id({"domains/viktorbarzin.me/dns/mx": {"mail.viktorbarzin.me": 1}})
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_the_policy_is_what_the_record_hashes(recording: Callable[..., Recording], site: Callable[..., Site]):
    run = recording("prod")
    served = server(run)["ConfigMap"].inputs["data"]["mta-sts.viktorbarzin.me"]
    assert served == policy_text(site("prod"), "viktorbarzin.me")
    assert served.splitlines() == [
        "version: STSv1",
        "mode: testing",
        "mx: mail.viktorbarzin.me",
        "mx: mx2.viktorbarzin.me",
        "max_age: 604800",
    ]
    assert served.count("\r\n") == 5
    assert cloudflare(run)["mta-sts"].inputs["content"] == f'"v=STSv1; id={policy_id(site("prod"), "viktorbarzin.me")}"'


@pytest.mark.parametrize("stack", ["prod", "dev"])
def test_the_policy_server_keeps_the_schemas(stack: str, recording: Callable[..., Recording]):
    objects = server(recording(stack))
    assert objects.keys() == {"ConfigMap", "Deployment", "Service", "Ingress"}
    for resource in objects.values():
        kubernetes_validate.validate(resource.inputs, KUBERNETES, strict=True)
    pod = objects["Deployment"].inputs["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    # Where it writes is memory; everything else it needs is the ConfigMap, mounted as a folder so that a change arrives.
    assert {volume["name"]: set(volume) - {"name"} for volume in pod["volumes"]} == {"site": {"configMap"}, "tmp": {"emptyDir"}}


def test_the_ingress_has_only_the_middlewares_listed_for_it(recording: Callable[..., Recording]):
    key = "traefik.ingress.kubernetes.io/router.middlewares"
    annotations = server(recording("prod"))["Ingress"].inputs["metadata"]["annotations"]
    assert key not in annotations
    limited = recording("prod", {"dns/policy_server": {"middlewares": ["traefik-rate-limit@kubernetescrd"]}})
    assert server(limited)["Ingress"].inputs["metadata"]["annotations"][key] == "traefik-rate-limit@kubernetescrd"


@pytest.mark.parametrize("name", ["traefik-authentik-forward-auth", "traefik-error-pages", "https-redirect", "traefik-ai-bot-block"])
def test_a_middleware_that_would_hide_the_policy_is_refused(name: str, recording: Callable[..., Recording]):
    with pytest.raises(pulumi.RunError, match=r"dns\.policy_server\.middlewares\.0: .*RFC 8461"):
        recording("prod", {"dns/policy_server": {"middlewares": [f"{name}@kubernetescrd"]}})


def test_the_certificate_is_named_per_domain(recording: Callable[..., Recording]):
    ingress = server(recording("dev"))["Ingress"].inputs
    assert ingress["metadata"]["annotations"]["cert-manager.io/cluster-issuer"] == "letsencrypt"
    assert ingress["spec"]["tls"] == [
        {"hosts": [f"{label}.example.org" for label in ("mta-sts", "autoconfig", "autodiscover")], "secretName": "mta-sts-tls"}
    ]
    assert server(recording("prod"))["Ingress"].inputs["spec"]["tls"] == [
        {"hosts": ["mta-sts.viktorbarzin.me"], "secretName": "tls-secret"}
    ]


def test_a_wrong_record_stops_the_preview_with_a_line_for_each(recording: Callable[..., Recording]):
    changes = {"domains/viktorbarzin.me/dns/mta_sts/mode": "enforce", "domains/viktorbarzin.me/dns/mx": {"mx.viktorbarzin.me": 1}}
    with pytest.raises(pulumi.RunError) as refusal:
        recording("prod", changes)
    lines = str(refusal.value).splitlines()
    assert any("mx.viktorbarzin.me has no address" in line for line in lines)
    assert any("enforce was never tested" in line for line in lines)
    assert all(line.endswith("]") for line in lines)


def test_a_site_without_cloudflare_does_not_import_its_sdk():
    """In a process of its own, because another test has imported everything by now."""
    program = (
        "import sys, json; from tests.conftest import recording_of, settings\n"
        "for changes in ({'dns': None}, {}):\n"
        "    recording_of(json.dumps(settings('dev') | changes))\n"
        "    print(*(name in sys.modules for name in ('pulumi_cloudflare', 'dkim', 'checkdmarc')))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["False False False", "False False True"]


def test_dns_can_be_off(recording: Callable[..., Recording]):
    without = recording("dev", {"dns": None})
    assert not server(without)
    assert not cloudflare(without)
