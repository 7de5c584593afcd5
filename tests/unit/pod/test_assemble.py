"""The init container's readers. The whole script runs on the real doveadm in tests/lab."""

import json

import pytest

from tests.unit.pod.conftest import DOMAINS, HASH, complaint
from tools.pod import program

assemble = program("assemble")


def aliases(declared: str, stored: str | None, addresses: set[str] | None = None, quotas: bool = False) -> str:
    return assemble.aliases(declared, stored, addresses or set(), DOMAINS, quotas)


def test_aliases_of_both_sources_are_merged_and_equal_ones_kept_once():
    stored = "# family\nFriend@a.org  friend@example.com\n\nteam@a.org you@a.org me@a.org # both\n@a.org spam@a.org\n"
    merged = aliases("@a.org spam@a.org\nteam@a.org me@a.org,you@a.org\n", stored)
    assert merged == "@a.org spam@a.org\nteam@a.org me@a.org,you@a.org\nfriend@a.org friend@example.com\n"


def test_an_alias_with_two_meanings_is_refused():
    said = complaint(aliases, "x@a.org me@a.org\n", "x@a.org you@a.org\n")
    assert said == "aliases: x@a.org has other targets in the secret store than before; keep one of them"


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ("x@a.org # later", "x@a.org (secret store) has no target"),
        ("", "the Secret has no alias in it"),
        ("# nothing yet\n", "the Secret has no alias in it"),
        ('{"grandma@a.org": "g@example.com"}', "is not an address or @domain"),
        ("grandma@a.org: g@example.com", "is not an address or @domain"),
        ("team@a.org me@a.org you at a.org", "has the target 'you', which is not an address"),
        ("grandma g@example.com", "'grandma' (secret store) is not an address or @domain"),
        ("aunt@else.example me@a.org", "the domain of aunt@else.example (secret store) is not one of the settings'"),
        ("@else.example me@a.org", "the domain of @else.example (secret store) is not one of the settings'"),
    ],
)
def test_an_invalid_alias_is_refused_and_not_dropped(stored, words):
    assert words in complaint(aliases, "", stored)


def test_without_the_secret_the_settings_alone_count():
    assert aliases("x@a.org me@a.org\n", None) == "x@a.org me@a.org\n"


@pytest.mark.parametrize(
    ("line", "breaks"),
    [
        ("a@a.org b@a.org", True),
        ("a@a.org a@a.org", False),
        ("a@a.org a@a.org,b@a.org", False),
        ("a@a.org x@example.com,b@a.org,a@a.org", True),
        ("a@a.org x@example.com", False),
        ("alias@a.org b@a.org", False),
    ],
)
def test_with_quotas_on_an_alias_between_mailboxes_is_refused(line, breaks):
    accounts = {"a@a.org", "b@a.org"}
    assert aliases("", line, accounts)
    if breaks:
        assert "breaks Dovecot's user list" in complaint(aliases, "", line, accounts, True)
    else:
        assert aliases("", line, accounts, True)


HOP = "[relay.a.org]:587"


@pytest.mark.parametrize("text", [f"{HOP} login:key with: odd #chars\n", f"{HOP}\tlogin:key", f"[old.a.org]:25 a:b\n{HOP} login:key"])
def test_a_relay_password_keeps_its_odd_characters(text):
    assert assemble.relay_password(text, HOP) == text.rstrip("\n") + "\n"


@pytest.mark.parametrize("text", ["", "# nothing yet\n", f"{HOP}\n", f"{HOP} login\n"])
def test_a_relay_without_a_password_is_refused(text):
    assert complaint(assemble.relay_password, text, HOP).startswith("relay: sasl_passwd must have lines")


@pytest.mark.parametrize("text", ["[relay.a.org]:578 l:k", "relay.a.org:587 l:k", "[other.a.org]:587 l:k", f"{HOP} a:b\n{HOP} c:d"])
def test_a_password_for_another_relay_is_refused(text):
    assert f"must have one line for {HOP}" in complaint(assemble.relay_password, text, HOP)


def test_dkim_keys_must_be_there_and_be_keys(tmp_path):
    (tmp_path / "a.org.mail").write_text("not a key")
    (tmp_path / "a.org.empty").write_text("\n")
    (tmp_path / "a.org.rubbish").write_text("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\n-----END PRIVATE KEY-----\n")
    said = complaint(assemble.dkim_keys, tmp_path, ["a.org.mail", "a.org.empty", "a.org.missing", "a.org.rubbish"])
    assert said.splitlines() == [
        "dkim: a.org.mail is not a PEM private key",
        "dkim: the key a.org.empty is missing",
        "dkim: the key a.org.missing is missing",
        "dkim: OpenSSL cannot read the key a.org.rubbish; mail would leave unsigned",
    ]


def test_a_json_string_from_a_terraform_store_is_read_as_its_text(tmp_path):
    path = tmp_path / "secret"
    for text, expected in (('"a b\\nc d\\n"', "a b\nc d\n"), ("a b\n", "a b\n"), ('{"a": "b"}', '{"a": "b"}'), ('"half', '"half')):
        path.write_text(text)
        assert assemble.read_text(path) == expected


# --- The last good set --------------------------------------------------------------------------------------------------------


@pytest.fixture
def pod(tmp_path):
    """The folders of an init container, with Secrets that are in order; `pod()` runs it and returns what it said."""

    class Pod:
        config, secrets, target, state = (tmp_path / name for name in ("config", "secrets", "target", "state"))

        def __call__(self) -> list[str]:
            return assemble.assemble(self.config, self.secrets, self.target, self.state, quotas=False, relay=HOP)

    made = Pod()
    for folder in (made.config, made.target, made.state, *(made.secrets / part for part in ("accounts", "aliases", "relay"))):
        folder.mkdir(parents=True)
    for name, text in (("mailboxes", "me@a.org\n"), ("domains", "a.org\n"), ("dkim-keys", "")):
        (made.config / f"{name}.txt").write_text(text)
    (made.config / "postfix-virtual.cf").write_text("")
    (made.secrets / "accounts" / "accounts").write_text(json.dumps({"me@a.org": HASH}))
    (made.secrets / "aliases" / "aliases").write_text("friend@a.org friend@example.com\n")
    (made.secrets / "relay" / "sasl_passwd").write_text(f"{HOP} login:key\n")
    return made


FAULTS = {
    "accounts": ("accounts/accounts", json.dumps({"me@a.org": HASH, "Bob@a.org": "x"}), "is not a lower-case mail address"),
    "aliases": ("aliases/aliases", None, "aliases/aliases: is missing"),
    "relay": ("relay/sasl_passwd", "[relay.a.org]:578 login:key", "must have one line for"),
}


def spoil(pod, part: str) -> str:
    name, text, words = FAULTS[part]
    path = pod.secrets / name
    path.unlink() if text is None else path.write_text(text)
    return words


@pytest.mark.parametrize("part", FAULTS)
def test_a_fault_in_one_secret_starts_with_that_part_of_the_last_good_set_and_says_so(pod, part):
    assert pod() == []
    before = {path.name: path.read_text() for path in pod.target.iterdir() if path.is_file()}
    words = spoil(pod, part)
    said = pod()
    assert words in said[0]
    assert said[-1].startswith(f"LAST GOOD SET IN USE: {part} as of 20")
    assert {path.name: path.read_text() for path in pod.target.iterdir() if path.is_file()} == before
    assert pod()[-1].startswith("LAST GOOD SET IN USE")  # a start with it does not make it younger or lose it


@pytest.mark.parametrize("part", FAULTS)
def test_without_a_last_good_set_a_fault_stops_the_pod_and_writes_nothing(pod, part):
    words = spoil(pod, part)
    assert words in complaint(pod)
    assert list(pod.target.iterdir()) == []


def test_everything_that_is_missing_is_told_at_once(pod):
    for name, _, _ in FAULTS.values():
        (pod.secrets / name).unlink()
    (pod.config / "dkim-keys.txt").write_text("a.org.mail\n")
    assert complaint(pod).splitlines() == [
        "accounts/accounts: is missing",
        "aliases/aliases: is missing",
        "relay/sasl_passwd: is missing",
        "dkim: the key a.org.mail is missing",
    ]


def test_the_last_good_set_is_for_root_alone(pod):
    assert pod() == []
    kept = pod.state / "last-good"
    modes = {path.name: path.stat().st_mode & 0o777 for path in (kept, *kept.rglob("*"))}
    assert modes == dict.fromkeys(("last-good", *("accounts", "aliases", "relay", "dkim")), 0o700) | dict.fromkeys(
        ("postfix-accounts.cf", "passwords.json", "postfix-virtual.cf", "postfix-sasl-password.cf"), 0o600
    )


def test_a_last_good_set_for_another_relay_is_of_no_use(pod):
    assert pod() == []
    (pod.secrets / "relay" / "sasl_passwd").write_text("nonsense")
    assert pod()[-1].startswith("LAST GOOD SET IN USE: relay")
    with pytest.raises(assemble.ProblemError):
        assemble.assemble(pod.config, pod.secrets, pod.target, pod.state, quotas=False, relay="[new.a.org]:587")


def test_app_passwords_are_never_those_of_an_earlier_start(pod):
    secret, listed = pod.secrets / "app-passwords" / "app_passwords", pod.target / "app-passwords.txt"
    secret.parent.mkdir()
    secret.write_text(json.dumps({"me@a.org": {"phone": HASH}}))
    assert pod() == []
    assert listed.read_text() == f"me@a.org|phone|{HASH}\n"
    secret.write_text('{"me@a.org": {')
    (said,) = pod()
    assert said.startswith("app_passwords: not JSON")
    assert listed.read_text() == ""
    secret.write_bytes(b"\xff")
    assert pod() == ["app-passwords/app_passwords: not UTF-8"]
    secret.unlink()
    assert pod() == ["app-passwords/app_passwords: is missing"]


@pytest.mark.parametrize("text", ["", "two\nlines", "with a blank", 'a"b', "a#b", "a/b", "caf\u00e9"])
def test_an_unusable_client_secret_is_told_and_costs_nothing_else(pod, text):
    secret, written = pod.secrets / "oauth" / "client_secret", pod.target / "oauth.cf"
    (pod.config / "oauth.cf").write_text("url = https://mail:@id.a.org/\n")
    secret.parent.mkdir()
    secret.write_text("s3cret-._~\n")
    assert pod() == []
    assert written.read_text() == "url = https://mail:s3cret-._~@id.a.org/\n"
    assert written.stat().st_mode & 0o777 == 0o600
    secret.write_text(text)
    (said,) = pod()
    assert said.startswith("oauth: client_secret must be of letters, digits and -._~")
    assert written.read_text() == "url = https://mail:@id.a.org/\n"
    assert (pod.target / "postfix-accounts.cf").exists()


def test_an_empty_file_of_a_crash_is_not_a_last_good_set(pod):
    assert pod() == []
    (pod.state / "last-good" / "accounts" / "postfix-accounts.cf").write_text("")
    spoil(pod, "accounts")
    assert "is not a lower-case mail address" in complaint(pod)


def test_a_full_state_volume_does_not_stop_the_pod(pod, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(assemble, "keep", full)
    assert set(pod()) == {"the last good set could not be kept for the next start: No space left on device"}
    assert (pod.target / "postfix-accounts.cf").exists()
