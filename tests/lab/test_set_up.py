"""The two scripts that put the pod's configuration together, run for real on real tools."""

import json
import re
import stat
from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import pytest

from components.errors import UserError
from components.mail.image import CONFIG_DIR, DKIM_DIR
from components.settings.mail import OutboundModule
from tests.lab.alone import pod_alone, secrets_for
from tests.lab.support import image, lab_site
from tools.lab.compare import differences
from tools.lab.image import MailServer

READY_HASH = "{SHA512-CRYPT}$6$rounds=5000$saltsalt$" + "x" * 86
ODD = {
    "alice@example.org": "sp ace 'quote' \"double\" $HOME `id` \\back\\ {brace} |pipe| #hash ünïcödé",
    "bob@example.org": "-leading-dash",
    "both@example.org": READY_HASH,
    "busy@example.org": "=equals: and a colon",
    "spam@example.org": "{not a hash} but in braces",
    "o'neil&co+x@example.org": "an address that shells and tables could trip over",
}


@pytest.fixture(scope="module")
def pod(major: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    with pod_alone(tmp_path_factory.mktemp("set-up") / "pod", lab_site(image(major))) as pod:
        yield pod


@pytest.fixture
def fresh(pod: MailServer) -> MailServer:
    pod.secrets = replace(secrets_for(pod.site), accounts=dict(ODD))
    return pod


def _mode(pod: MailServer, path: str) -> tuple[int, str]:
    status = pod.host.path(path).stat()
    owner = pod.host.run("stat", "-c", "%U", path).stdout.strip()
    return stat.S_IMODE(status.st_mode), owner


def test_every_password_opens_its_own_mailbox_only(fresh: MailServer) -> None:
    fresh.assemble()
    for line in fresh.host.path(f"{CONFIG_DIR}/postfix-accounts.cf").read_text().splitlines():
        address, hashed = line.split("|")
        if ODD[address] == READY_HASH:
            assert hashed == READY_HASH
            continue
        assert re.fullmatch(r"\{SHA512-CRYPT\}\$6\$rounds=50000\$.+", hashed)
        assert fresh.host.run("doveadm", "pw", "-t", hashed, "-p", ODD[address]).returncode == 0
        assert fresh.host.run("doveadm", "pw", "-t", hashed, "-p", "wrong", check=False).returncode != 0


def test_only_those_who_need_a_secret_can_read_it(fresh: MailServer) -> None:
    fresh.assemble()
    assert _mode(fresh, f"{CONFIG_DIR}/postfix-accounts.cf") == (0o600, "root")
    assert _mode(fresh, f"{CONFIG_DIR}/postfix-sasl-password.cf") == (0o600, "root")
    for name in fresh.secrets.dkim:
        assert _mode(fresh, f"{DKIM_DIR}/{name}") == (0o400, "_rspamd")
    fresh.host.run(
        "setpriv", "--reuid=_rspamd", "--regid=_rspamd", "--clear-groups", "cat", *(f"{DKIM_DIR}/{n}" for n in fresh.secrets.dkim)
    )


def test_a_second_run_finds_the_first_ones_files_and_ends_the_same(fresh: MailServer) -> None:
    fresh.assemble()
    before = sorted(str(path.name) for path in fresh.host.path(CONFIG_DIR).rglob("*"))
    fresh.assemble()
    assert sorted(str(path.name) for path in fresh.host.path(CONFIG_DIR).rglob("*")) == before


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda secrets: secrets.accounts.pop("bob@example.org"), "bob@example.org is declared in the settings but has no password"),
        (lambda secrets: secrets.accounts.update({"bob@example.org": ""}), "the password of bob@example.org is empty"),
        (lambda secrets: secrets.accounts.update({"bob@example.org": "two\nlines"}), "has a line break in it"),
        (lambda secrets: secrets.accounts.update({"Bob@example.org": "x"}), "is not a lower-case mail address"),
        (lambda secrets: secrets.dkim.clear(), "dkim: the key example.org.mail is missing"),
        (lambda secrets: secrets.dkim.update({"example.org.mail": "not a key"}), "is not a PEM private key"),
        (lambda secrets: setattr(secrets, "relay", "nonsense"), "relay: sasl_passwd must have lines"),
        (lambda secrets: setattr(secrets, "relay", None), "relay/sasl_passwd: is missing"),
    ],
)
def test_what_is_missing_or_wrong_stops_the_pod_with_one_line(fresh: MailServer, spoil, complaint: str) -> None:
    fresh.host.run("rm", "-rf", "/state/last-good")
    spoil(fresh.secrets)
    with pytest.raises(UserError, match=re.escape(complaint)) as stopped:
        fresh.assemble()
    assert "Traceback" not in str(stopped.value)


def test_a_fault_in_the_secrets_starts_with_the_last_good_ones_and_hashes_nothing_again(fresh: MailServer) -> None:
    fresh.assemble()
    assert fresh.said == ""
    before = {name: fresh.host.path(f"{CONFIG_DIR}/{name}").read_text() for name in ("postfix-accounts.cf", "postfix-sasl-password.cf")}
    fresh.secrets.accounts["Bob@example.org"] = "x"
    fresh.assemble()
    assert "'Bob@example.org' is not a lower-case mail address" in fresh.said
    assert "LAST GOOD SET IN USE: accounts" in fresh.said
    assert {name: fresh.host.path(f"{CONFIG_DIR}/{name}").read_text() for name in before} == before
    del fresh.secrets.accounts["Bob@example.org"]
    fresh.assemble()
    assert fresh.said == ""
    assert fresh.host.path(f"{CONFIG_DIR}/postfix-accounts.cf").read_text() == before["postfix-accounts.cf"]  # the same salts
    for path in ("/state/last-good", "/state/last-good/dkim"):
        assert _mode(fresh, path) == (0o700, "root")


def test_a_revoked_app_password_is_gone_at_the_next_start_though_another_is_faulty(fresh: MailServer) -> None:
    fresh.secrets.app_passwords = {"bob@example.org": {"phone": "first", "tablet": READY_HASH}}
    fresh.assemble()
    path = f"{CONFIG_DIR}/app-passwords.txt"
    phone, tablet = fresh.host.path(path).read_text().splitlines()
    assert fresh.host.run("doveadm", "pw", "-t", phone.removeprefix("bob@example.org|phone|"), "-p", "first").returncode == 0
    assert tablet == f"bob@example.org|tablet|{READY_HASH}"
    assert _mode(fresh, path) == (0o600, "root")
    fresh.secrets.app_passwords = {"bob@example.org": {"tablet": READY_HASH, "laptop": ""}}
    fresh.assemble()
    assert fresh.said == "assemble: app_passwords: the password of bob@example.org for laptop is empty\n"
    assert fresh.host.path(path).read_text() == f"{tablet}\n"


def test_a_changed_password_opens_its_mailbox_at_the_next_start(fresh: MailServer) -> None:
    fresh.assemble()
    fresh.secrets.accounts["bob@example.org"] = "another"
    fresh.assemble()
    lines = fresh.host.path(f"{CONFIG_DIR}/postfix-accounts.cf").read_text().splitlines()
    (hashed,) = [line.partition("|")[2] for line in lines if line.startswith("bob@")]
    assert fresh.host.run("doveadm", "pw", "-t", hashed, "-p", "another").returncode == 0


def test_aliases_of_the_store_join_those_of_the_settings(fresh: MailServer) -> None:
    fresh.secrets.aliases = json.dumps("# third persons\nclub@example.org me@elsewhere.example, you@elsewhere.example\n")
    before = fresh.site
    fresh.render(lab_site(image(before.mail.image_major) | {"mail/stored_aliases": {"name": "mailserver-aliases"}}))
    fresh.assemble()
    fresh.render(before)
    lines = fresh.host.path(f"{CONFIG_DIR}/postfix-virtual.cf").read_text().splitlines()
    assert "club@example.org me@elsewhere.example,you@elsewhere.example" in lines
    assert "alice@example.org alice@example.org" in lines


class TestUserPatches:
    def test_twice_is_the_same_as_once(self, fresh: MailServer) -> None:
        fresh.assemble()
        fresh.set_up()
        files = ("/etc/postfix/main.cf", "/etc/postfix/master.cf", "/usr/local/sbin/postsrsd")
        once = fresh.fingerprint(*files)
        fresh.user_patches()
        assert fresh.fingerprint(*files) == once

    def test_a_mailbox_without_a_home_stops_nothing_else(self, fresh: MailServer) -> None:
        fresh.assemble()
        fresh.set_up()
        fresh.host.run("rm", "-rf", "/var/mail/example.org/bob/home", "/usr/local/sbin/postsrsd", "/run/user-patches.ended")
        fresh.user_patches()
        assert fresh.host.path("/usr/local/sbin/postsrsd").exists()
        assert fresh.host.path("/run/user-patches.ended").exists()
        assert not fresh.host.path("/var/mail/example.org/bob/home").exists()

    def test_what_mail_depends_on_is_done_before_anything_can_fail(self, fresh: MailServer) -> None:
        """The image ignores how the script ends; the startup probe looks for its last word."""
        fresh.assemble()
        fresh.set_up()
        fresh.host.run("rm", "-f", "/usr/local/sbin/postsrsd", f"{CONFIG_DIR}/proxy-listeners.txt")
        with pytest.raises(UserError):
            fresh.user_patches()
        assert fresh.host.path("/usr/local/sbin/postsrsd").exists()
        assert not fresh.host.path("/run/user-patches.ended").exists()

    def test_a_twin_differs_from_its_stock_service_in_nothing_but_the_header(self, fresh: MailServer) -> None:
        fresh.assemble()
        fresh.set_up()
        for stock, port in (("submission", 5587), ("submissions", 4465)):
            ours, theirs = (_options(fresh, f"{name}/inet") for name in (str(port), stock))
            added = {"smtpd_upstream_proxy_protocol": "haproxy", "smtpd_upstream_proxy_timeout": "5s"}
            assert ours == theirs | added | {"syslog_name": ours["syslog_name"]}
            assert ours["syslog_name"].startswith("postfix/smtpd-proxy")

    def test_a_declared_sieve_script_that_an_earlier_version_installed_leaves_the_mailbox(self, fresh: MailServer) -> None:
        fresh.assemble()
        home = "/var/mail/example.org/bob/home"
        for name in (".dovecot.sieve", ".dovecot.sieve.declared"):
            fresh.host.write(f"{home}/{name}", "")
        fresh.set_up()
        assert [path.name for path in fresh.host.path(home).glob(".dovecot*")] == []

    def test_a_declared_sieve_script_with_a_mistake_stops_nothing(self, fresh: MailServer) -> None:
        before = fresh.site
        fresh.render(lab_site(image(before.mail.image_major) | {"mail/mailboxes/bob@example.org/sieve": "no such command;"}))
        fresh.assemble()
        fresh.set_up()
        fresh.render(before)
        assert fresh.host.path("/run/user-patches.ended").exists()

    def test_a_sieve_script_of_another_origin_stays(self, fresh: MailServer) -> None:
        fresh.assemble()
        home = "/var/mail/example.org/alice/home"
        fresh.host.write(f"{home}/.dovecot.sieve", "keep;\n")
        fresh.set_up()
        assert fresh.host.path(f"{home}/.dovecot.sieve").read_text() == "keep;\n"


def _options(pod: MailServer, service: str) -> dict[str, str]:
    rows = (line.split(" = ", 1) for line in pod.host.run("postconf", "-P", service).stdout.splitlines())
    return {name.removeprefix(f"{service}/").rstrip(" ="): (value[0] if value else "") for name, *value in rows}


def test_what_the_image_sets_holds_but_for_what_the_stack_overrides(major: str, tmp_path) -> None:
    def found(pod: MailServer) -> list[str]:
        return list(differences(lambda *command: pod.host.run(*command).stdout, pod.major))

    with pod_alone(tmp_path / "pod", lab_site(image(major) | {"mail/oauth": None})) as pod:  # it adds a list of passwords
        pod.assemble()
        pod.set_up()
        overridden = {"mynetworks", "milter_default_action", "dms_smtpd_sender_restrictions", "smtp_tls_security_level"}
        by_managesieve = {"dovecot protocols"}
        assert {line.partition(": ")[0] for line in found(pod)} == overridden | by_managesieve

        pod.host.run("postconf", "-P", "submission/inet/smtpd_tls_security_level=may")
        pod.host.run("sh", "-c", "echo 'auth_verbose = no' >>/etc/dovecot/dovecot.conf")
        changed = found(pod)
        assert "master.cf submission/inet/smtpd_tls_security_level: 'encrypt', but 'may'" in changed
        assert "dovecot auth_verbose: 'yes', but 'no'" in changed


def test_a_module_that_the_settings_turn_off_is_off(major: str, tmp_path) -> None:
    every = list(get_args(OutboundModule))
    states = {}
    for off in ([], every):
        with pod_alone(tmp_path / f"pod{len(off)}", lab_site(image(major) | {"mail/rspamd/disabled_modules": off})) as pod:
            pod.assemble()
            pod.set_up()
            lines = pod.host.run("rspamadm", "configdump", "-m").stdout.splitlines()
            (enabled,) = [line for line in lines if line.startswith("Modules enabled:")]
            states[len(off)] = set(enabled.partition(": ")[2].split(", "))
    assert states[0] >= set(every) - {"asn"}  # Debian's Rspamd starts `asn` with Redis only
    assert not states[len(every)] & set(every)
