"""The init container's readers. The whole script runs on the real doveadm in tests/lab."""

import importlib.util
import json

import pytest

from tools.offline.stackfile import ROOT

spec = importlib.util.spec_from_file_location("assemble", ROOT / "scripts/pod/assemble.py")
assert spec and spec.loader
assemble = importlib.util.module_from_spec(spec)
spec.loader.exec_module(assemble)

HASH = "{SHA512-CRYPT}$6$" + "x" * 40


def complaint(call, *arguments) -> str:
    with pytest.raises(assemble.ProblemError) as refused:
        call(*arguments)
    return str(refused.value)


def test_ready_hashes_are_kept_as_they_are():
    assert assemble.accounts(json.dumps({"me@a.org": HASH}), ["me@a.org"]) == f"me@a.org|{HASH}\n"


def test_every_wrong_account_is_told_at_once_and_no_password_is_shown():
    entries = {"Upper@a.org": "hunter2", "no-address": "hunter2", "empty@a.org": "", "list@a.org": ["hunter2"], "break@a.org": "hunter2\nx"}
    said = complaint(assemble.accounts, json.dumps(entries), ["missing@a.org"])
    assert len(said.splitlines()) == 6
    assert "missing@a.org is declared in the settings but has no password" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"'])
def test_accounts_that_are_no_map_are_refused(text):
    assert complaint(assemble.accounts, text, []).startswith("accounts: ")


def test_aliases_of_both_sources_are_merged_and_equal_ones_kept_once():
    stored = "# family\nfriend@a.org  friend@example.com\n\nteam@a.org me@a.org, you@a.org # both\n@a.org spam@a.org\n"
    merged = assemble.aliases("@a.org spam@a.org\nteam@a.org me@a.org,you@a.org\n", stored, set(), False)
    assert merged == "@a.org spam@a.org\nteam@a.org me@a.org,you@a.org\nfriend@a.org friend@example.com\n"


def test_an_alias_with_two_meanings_is_refused():
    said = complaint(assemble.aliases, "x@a.org me@a.org\n", "x@a.org you@a.org\n", set(), False)
    assert said == "aliases: x@a.org has other targets in the secret store than before; keep one of them"


def test_an_alias_without_a_target_is_refused():
    assert "x@a.org (secret store) has no target" in complaint(assemble.aliases, "", "x@a.org # later\n", set(), False)


@pytest.mark.parametrize(
    ("line", "breaks"),
    [
        ("a@a.org b@a.org", True),
        ("a@a.org a@a.org", False),
        ("a@a.org a@a.org,b@a.org", False),
        ("a@a.org x@example.com", False),
        ("alias@a.org b@a.org", False),
    ],
)
def test_with_quotas_on_an_alias_between_mailboxes_is_refused(line, breaks):
    accounts = {"a@a.org", "b@a.org"}
    assert assemble.aliases("", line, accounts, False)
    if breaks:
        assert "breaks Dovecot's user list" in complaint(assemble.aliases, "", line, accounts, True)
    else:
        assert assemble.aliases("", line, accounts, True)


@pytest.mark.parametrize("text", ["[relay.a.org]:587 login:key with: odd #chars\n", "[relay.a.org]:587\tlogin:key"])
def test_a_relay_password_keeps_its_odd_characters(text):
    assert assemble.relay_password(text) == text.rstrip("\n") + "\n"


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "[relay.a.org]:587\n", "[relay.a.org]:587 login\n"])
def test_a_relay_without_a_password_is_refused(text):
    assert complaint(assemble.relay_password, text).startswith("relay: sasl_passwd must have lines")


def test_dkim_keys_must_be_there_and_be_keys(tmp_path):
    (tmp_path / "a.org.mail").write_text("not a key")
    (tmp_path / "a.org.empty").write_text("\n")
    said = complaint(assemble.dkim_keys, tmp_path, ["a.org.mail", "a.org.empty", "a.org.missing"])
    assert said.splitlines() == [
        "dkim: a.org.mail is not a PEM private key",
        "dkim: the key a.org.empty is missing",
        "dkim: the key a.org.missing is missing",
    ]


def test_a_json_string_from_a_terraform_store_is_read_as_its_text(tmp_path):
    path = tmp_path / "secret"
    for text, expected in (('"a b\\nc d\\n"', "a b\nc d\n"), ("a b\n", "a b\n"), ('{"a": "b"}', '{"a": "b"}'), ('"half', '"half')):
        path.write_text(text)
        assert assemble.read_text(path) == expected


def test_nothing_is_written_before_everything_is_there(tmp_path):
    config, secrets, target = (tmp_path / name for name in ("config", "secrets", "target"))
    for folder in (config, secrets, target):
        folder.mkdir()
    (config / "mailboxes.txt").write_text("me@a.org\n")
    (config / "dkim-keys.txt").write_text("a.org.mail\n")
    (config / "postfix-virtual.cf").write_text("")
    said = complaint(lambda: assemble.assemble(config, secrets, target, quotas=False, relay=True))
    assert said.splitlines() == ["accounts/accounts: is missing", "relay/sasl_passwd: is missing", "dkim: the key a.org.mail is missing"]
    assert list(target.iterdir()) == []
