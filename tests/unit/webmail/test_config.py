"""Roundcube's rendered configuration, read by PHP itself."""

import json
import shutil
import subprocess

import pytest

from components.webmail import image
from components.webmail.config import custom_php, php_ini

pytestmark = pytest.mark.skipif(shutil.which("php") is None, reason="needs php-cli (tools/packages.sh)")

MYSQL = {"webmail/database": {"type": "mysql", "host": "mysql.databases.svc"}}
AWKWARD = "p@ss/w:rd'\\%$x \"end"  # what a URL, a PHP text and a shell each read as syntax


def read(site, tmp_path, password: str = "", server: dict[str, str] | None = None) -> dict:
    """The options as PHP has them after custom.php, with the Secrets' files where the test can write them."""
    secrets = {image.SESSION_KEY_FILE: "k" * 24, image.PASSWORD_FILE: password, image.EXTRA_FILE: "<?php $config['language'] = 'bg_BG';"}
    text = custom_php(site, site.webmail)
    for path, value in secrets.items():
        file = tmp_path / path.rpartition("/")[2]
        file.write_text(f"{value}\n")
        text = text.replace(f"'{path}'", f"'{file}'")
    (tmp_path / "custom.php").write_text(text)
    program = f"$_SERVER = json_decode($argv[1], true); $config = []; include '{tmp_path}/custom.php'; echo json_encode($config);"
    command = ["php", "-r", program, json.dumps(server or {"REMOTE_ADDR": "192.0.2.1"})]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_both_servers_must_show_the_public_name(site, tmp_path):
    config = read(site("prod"), tmp_path)
    assert config["imap_host"] == "ssl://mailserver.mailserver.svc.cluster.local:993"
    assert config["smtp_host"] == "ssl://mailserver.mailserver.svc.cluster.local:465"
    assert config["managesieve_host"] == "tls://mailserver.mailserver.svc.cluster.local:4190"
    verified = {"ssl": {"verify_peer": True, "verify_peer_name": True, "peer_name": "mail.viktorbarzin.me"}}
    assert [config[f"{kind}_conn_options"] for kind in ("imap", "smtp", "managesieve")] == [verified] * 3


def test_an_awkward_password_reaches_the_database_as_it_is(site, tmp_path):
    dsn = read(site("dev", MYSQL), tmp_path, AWKWARD)["db_dsnw"]
    assert AWKWARD not in dsn
    parsed = subprocess.run(
        ["php", "-r", "echo rawurldecode(parse_url($argv[1], PHP_URL_PASS));", dsn], capture_output=True, text=True, check=True
    )
    assert parsed.stdout == AWKWARD


def test_sqlite_needs_no_password(site, tmp_path):
    assert read(site("dev"), tmp_path)["db_dsnw"].startswith("sqlite:////var/roundcube/db/")
    assert image.PASSWORD_FILE not in custom_php(site("dev"), site("dev").webmail)


def test_a_plugins_own_keys_come_from_a_secret_and_have_the_last_word(site, tmp_path):
    changes = {"webmail/extra_config": "$config['language'] = 'de_DE';"}
    assert read(site("dev", changes), tmp_path)["language"] == "de_DE"
    assert read(site("dev", changes | {"webmail/extra_secret": {}}), tmp_path)["language"] == "bg_BG"


def test_no_variable_holds_the_password(site):
    variables = image.environment(site("prod").webmail)
    assert variables["ROUNDCUBEMAIL_DSNW"] == "mysql://roundcubemail@mysql.dbaas.svc.cluster.local:3306/roundcubemail"
    assert not [name for name in variables if "PASSWORD" in name]


def test_third_party_plugins_are_loaded_by_their_folder(site, tmp_path):
    config = read(site("dev", {"webmail/composer_plugins": {"jfcherng-roundcube/show-folder-size": "0.7.20"}}), tmp_path)
    assert config["plugins"][-1] == "show_folder_size"


def test_the_largest_attachment_fits_into_the_largest_message(site, tmp_path):
    prod = site("prod")
    limits = dict(line.split(" = ") for line in php_ini(prod).splitlines())
    (tmp_path / "webmail.ini").write_text(php_ini(prod))
    program = "echo ini_get('upload_max_filesize'), ' ', ini_get('post_max_size');"
    shown = subprocess.run(
        ["php", "-r", program],
        env={"PATH": "/usr/bin:/bin", "PHP_INI_SCAN_DIR": f":{tmp_path}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown == f"{limits['upload_max_filesize']} {limits['post_max_size']}"
    # base64: 57 bytes become a line of 78 (RFC 2045 section 6.8).
    assert int(limits["upload_max_filesize"]) * 4 / 3 <= read(prod, tmp_path)["max_message_size"] == 200 << 20


def test_a_sites_own_lines_have_the_last_word(site, tmp_path):
    config = read(site("dev", {"webmail/extra_config": "$config['max_message_size'] = 7;"}), tmp_path)
    assert config["max_message_size"] == 7


@pytest.mark.parametrize(
    ("peer", "forwarded", "believed"),
    [
        ("10.244.3.7", "203.0.113.9, 198.51.100.4", ["10.244.3.7"]),
        ("10.244.3.7", "203.0.113.9, 10.244.200.1", ["10.244.3.7", "10.244.200.1"]),
        ("10.245.0.1", "203.0.113.9", []),
        ("fd00:244:8000::7", "203.0.113.9", ["fd00:244:8000::7"]),
        ("fd00:245::7", "not an address", []),
        ("10.244.3.7", None, ["10.244.3.7"]),
    ],
)
def test_only_the_ingress_controller_tells_a_clients_address(site, tmp_path, peer, forwarded, believed):
    two = site("dev", {"webmail/ingress/proxies": ["10.244.0.0/16", "fd00:244:8000::/33"]})
    server = {"REMOTE_ADDR": peer} | ({"HTTP_X_FORWARDED_FOR": forwarded} if forwarded else {})
    assert read(two, tmp_path, server=server)["proxy_whitelist"] == believed
