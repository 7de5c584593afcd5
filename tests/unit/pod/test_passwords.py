"""What the init container makes of the store's passwords. The whole runs on the real doveadm in tests/lab."""

import json

import pytest

from tests.unit.pod.conftest import DOMAINS, HASH, complaint
from tools.pod import program

passwords = program("passwords")


def read(entries: dict, declared: list[str] | None = None) -> dict[str, str]:
    return passwords.read_accounts(json.dumps(entries), declared or [], DOMAINS)


@pytest.mark.parametrize("scheme", ["SHA512-CRYPT", "sha512-crypt", "BLF-CRYPT", "SHA512-CRYPT.HEX"])
def test_ready_hashes_are_kept_as_they_are(scheme):
    entries = read({"me@a.org": f"{{{scheme}}}$6$xyz"})
    assert passwords.accounts(entries, {})["postfix-accounts.cf"] == f"me@a.org|{{{scheme}}}$6$xyz\n"


def test_every_wrong_account_is_told_at_once_and_no_password_is_shown():
    entries = {"Upper@a.org": "hunter2", "no-address": "hunter2", "empty@a.org": "", "list@a.org": ["hunter2"], "break@a.org": "hunter2\n"}
    said = complaint(read, entries, ["missing@a.org"])
    assert len(said.splitlines()) == 6
    assert "missing@a.org is declared in the settings but has no password" in said
    assert "hunter2" not in said


def test_an_account_of_another_domain_is_refused():
    assert "the domain of aunt@else.example is not one of the settings'" in complaint(read, {"aunt@else.example": "x"})


@pytest.mark.parametrize(
    ("password", "words"),
    [
        ("{MY}pass", "begins with {MY}, which is not a scheme"),
        ("{Secret}hello", "begins with {Secret}, which is not a scheme"),
        ("{SHA512CRYPT}$6$x", "begins with {SHA512CRYPT}, which is not a scheme"),
        ("{PLAIN}a|b", "is a hash with a blank, a colon or a bar"),
        ("{PLAIN}a:b", "is a hash with a blank, a colon or a bar"),
        ("{PLAIN}a b", "is a hash with a blank, a colon or a bar"),
    ],
)
def test_what_dovecot_would_take_for_a_hash_and_could_not_read_is_refused_by_name(password, words):
    said = complaint(read, {"me@a.org": password})
    assert said.startswith(f"accounts: the password of me@a.org {words}")


@pytest.mark.parametrize("password", ["{not a hash} but in braces", "{}", "{", "a{MY}b", "{\u00e4}x"])
def test_other_braces_are_a_password(password):
    assert not passwords.is_hash(password)


def test_an_account_that_is_listed_twice_is_refused():
    text = '{"me@a.org": "one", "you@a.org": "two", "me@a.org": "three"}'
    assert complaint(passwords.read_accounts, text, [], DOMAINS) == "accounts: me@a.org is listed twice"


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"'])
def test_accounts_that_are_no_map_are_refused(text):
    assert complaint(passwords.read_accounts, text, [], DOMAINS).startswith("accounts: ")


@pytest.fixture
def hashed(monkeypatch):
    """The passwords that are hashed anew."""
    made = []

    def hash_password(password):
        made.append(password)
        return f"{{SHA512-CRYPT}}$6$rounds={passwords.ROUNDS}${len(made)}$x"

    monkeypatch.setattr(passwords, "hash_password", hash_password)
    return made


def test_only_changed_passwords_and_their_neighbours_are_hashed_again(hashed):
    entries = {f"user{number}@a.org": f"secret{number}" for number in range(200)}
    first = passwords.accounts(entries, {})
    assert len(hashed) == 200
    assert passwords.accounts(entries, first) == first
    assert len(hashed) == 200
    changed = passwords.accounts(entries | {"user7@a.org": "another"}, first)
    assert "another" in hashed[200:]
    assert len(hashed[200:]) < 40
    assert changed["postfix-accounts.cf"] != first["postfix-accounts.cf"]
    assert passwords.accounts(entries, {**first, "postfix-accounts.cf": changed["postfix-accounts.cf"]}) != first  # hashes of another start
    assert "secret" not in json.dumps(first)


@pytest.mark.parametrize("damage", [{"passwords.json": '{"acc'}, {"passwords.json": ""}, {"postfix-accounts.cf": ""}])
def test_a_set_that_a_crash_cut_short_is_made_anew(hashed, damage):
    first = passwords.accounts({"me@a.org": "secret"}, {})
    assert passwords.accounts({"me@a.org": "secret"}, first | damage)["postfix-accounts.cf"]
    assert hashed == ["secret", "secret"]


def app_passwords(entries: object) -> tuple[str, list[str]]:
    return passwords.app_passwords(json.dumps(entries), {"bob@a.org", "me@a.org"})


def test_app_passwords_are_lines_of_account_device_and_hash():
    entries = {"me@a.org": {"tablet-2": HASH, "phone": HASH}, "bob@a.org": {"phone": HASH}}
    expected = "".join(f"{name}|{HASH}\n" for name in ("bob@a.org|phone", "me@a.org|phone", "me@a.org|tablet-2"))
    assert app_passwords(entries) == (expected, [])


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"aunt@a.org": {"phone": HASH}}, "aunt@a.org is not an account"),
        ({"bob@a.org": "hunter2"}, "bob@a.org must be a JSON object of device to password"),
        ({"bob@a.org": {"My phone": "hunter2"}}, "'My phone' of bob@a.org is not a device name"),
        ({"bob@a.org": {"a|b": "hunter2"}}, "'a|b' of bob@a.org is not a device name"),
        ({"bob@a.org": {"phone": ""}}, "the password of bob@a.org for phone is empty"),
        ({"bob@a.org": {"phone": ["hunter2"]}}, "the password of bob@a.org for phone is empty"),
        ({"bob@a.org": {"phone": "{MY}hunter2"}}, "the password of bob@a.org for phone begins with {MY}"),
    ],
)
def test_a_faulty_app_password_is_left_out_and_told_and_the_others_go_on(entries, words):
    text, (said,) = app_passwords(entries | {"me@a.org": {"phone": HASH}})
    assert text == f"me@a.org|phone|{HASH}\n"
    assert said.startswith("app_passwords: ")
    assert words in said
    assert "hunter2" not in said
