"""What taking over a running workload is refused for, and what the table says of its volumes."""

from typing import Any

import pytest

from tools.adoption import differences, moved_mail
from tools.plan import Step

URN = "urn:pulumi:prod::mailserver::kubernetes:apps/v1:Deployment::mail-deployment"


def deployment(source: dict[str, Any], folder: str = "data") -> dict[str, Any]:
    mount = {"name": "mail", "mountPath": "/var/mail/", "subPath": folder}
    pod = {"volumes": [{"name": "mail", **source}], "containers": [{"name": "server", "volumeMounts": [mount]}]}
    return {"kind": "Deployment", "metadata": {"name": "mailserver"}, "spec": {"template": {"spec": pod}}}


def claim(name: str) -> dict[str, Any]:
    return {"persistentVolumeClaim": {"claimName": name}}


def refusals(live: dict[str, Any], wanted: dict[str, Any], *, imported: bool = True) -> list[str]:
    step = Step("update", URN, retained=False, protection=None, old=live, new=wanted)
    return list(moved_mail([step] if imported else [], [step]))


@pytest.mark.parametrize(
    "live",
    [
        deployment(claim("old")),
        deployment(claim("mail"), "maildirs"),
        deployment({"nfs": {"server": "192.0.2.1", "path": "/mail"}}),
        deployment({"hostPath": {"path": "/srv/mail"}}),
    ],
)
def test_mail_that_is_elsewhere_is_not_left_behind(live):
    (text,) = refusals(live, deployment(claim("mail")))
    assert "PersistentVolumeClaim/mail /data" in text
    assert refusals(live, live) == []
    assert refusals(live, deployment(claim("mail")), imported=False) == []


def test_a_server_that_keeps_its_mail_nowhere_has_none_to_lose():
    assert refusals(deployment({"emptyDir": {}}), deployment(claim("mail"))) == []


def test_the_table_shows_which_claim_is_behind_a_folder():
    rows = {what: (today, afterwards) for what, today, afterwards in differences(deployment(claim("old")), deployment(claim("mail")))}
    assert rows["volumes"] == ("/var/mail: PersistentVolumeClaim/old /data", "/var/mail: PersistentVolumeClaim/mail /data")
