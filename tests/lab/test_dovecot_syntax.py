"""The rule on a site's own Dovecot lines against what the two Dovecots themselves say of them."""

import json
from collections.abc import Iterator

import pytest

from components.checks.registry import Refused, read_site
from components.errors import UserError
from tests.conftest import change
from tests.lab.support import image, lab_settings
from tools.lab.debian import below
from tools.lab.hosts import Host

OWN = {"15": "", "16": "dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\nmail_driver = maildir\nmail_path = /m\n"}
LINES = {
    "15": (
        "plugin {\n  quota_grace = 10%%\n}",
        "mail_location = maildir:/var/mail/%d/%n",
        "disable_plaintext_auth = yes",
        "ssl_dh = </etc/hostname",
        "protocol imap {\n  mail_plugins = $mail_plugins imap_quota\n}",
        "passdb {\n  driver = passwd-file\n  args = scheme=PLAIN /etc/dovecot/more\n}",
        "service imap {\n  service_count = 1\n}",
    ),
    "16": (
        "mail_home = /var/mail/%{user | domain}/%{user | username}/home",
        "mail_driver = sdbox",
        "mail_path = /var/mail/%{user}",
        "auth_allow_cleartext = no",
        "ssl_server_dh_file = /etc/hostname",
        "protocol imap {\n  mail_plugins {\n    imap_quota = yes\n  }\n}",
        "passdb more {\n  driver = passwd-file\n  passwd_file_path = /etc/dovecot/more\n}",
        "quota_storage_size = 1G",
        "sieve_script more {\n  type = before\n  path = /tmp/more.sieve\n}",
        "service imap {\n  restart_request_count = 1\n}",
    ),
}
# doveconf takes these as plain text; what fails is each login, or mail goes to folders with strange names.
MISREAD = {LINES["15"][4], LINES["16"][0]}
BOTH = ("mail_max_lock_timeout = 30 secs", "auth_cache_size = 10M", "service imap-login {\n  process_limit = 200\n}", "# plugin { }")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Host]]:
    folder, made = tmp_path_factory.mktemp("syntax"), {}
    try:
        for major in OWN:
            made[major] = Host(major, folder / major, below(major))
        yield made
    except UserError as reason:
        pytest.skip(str(reason))
    finally:
        for host in made.values():
            host.close()


def _is_read(host: Host, major: str, lines: str) -> bool:
    host.write("/tmp/dovecot.conf", f"{OWN[major]}{lines}\n")
    return host.run("doveconf", "-c", "/tmp/dovecot.conf", "-n", check=False).returncode == 0


def _is_named(major: str, lines: str) -> bool:
    settings = lab_settings()
    for path, value in (image(major) | {"mail/extra": {"dovecot": lines}}).items():
        change(settings, path, value)
    try:
        read_site(json.dumps(settings))
    except Refused as refused:
        return "mail.extra.dovecot: " in str(refused)
    return False


@pytest.mark.parametrize(("major", "lines"), [(major, lines) for major, known in LINES.items() for lines in known])
def test_a_line_of_the_other_dovecot_is_refused_by_dovecot_and_by_the_preview(hosts: dict[str, Host], major: str, lines: str) -> None:
    (other,) = set(LINES) - {major}
    assert _is_read(hosts[major], major, lines)
    assert not _is_named(major, lines)
    assert _is_named(other, lines)
    assert (lines in MISREAD) == _is_read(hosts[other], other, lines)


@pytest.mark.parametrize("lines", BOTH)
@pytest.mark.parametrize("major", LINES)
def test_a_line_that_both_read_is_not_named(hosts: dict[str, Host], major: str, lines: str) -> None:
    assert _is_read(hosts[major], major, lines)
    assert not _is_named(major, lines)
