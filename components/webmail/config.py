"""Roundcube's configuration as text: custom.php, which has the last word, and PHP's own limits."""

from components.listeners import IMAPS, MANAGESIEVE_PORT, SUBMISSIONS
from components.settings.quantity import in_bytes
from components.settings.site import Site
from components.settings.webmail import Database, Webmail
from components.webmail.image import DATABASE_DIR, ENIGMA_DIR, EXTRA_FILE, PASSWORD_FILE, SESSION_KEY_FILE, plugin_names

DATABASE_FILE = "sqlite.db"  # the image's own name


def custom_php(site: Site, webmail: Webmail) -> str:
    """`custom.php`. Passwords are read from their files at each request, so none of them is written anywhere."""
    server, name = site.in_cluster_host, _text(site.hostname)
    plugins = ", ".join(map(_text, plugin_names(webmail)))
    limit = in_bytes(site.mail.message_size_limit)
    text = f"""\
<?php
$config['db_dsnw'] = {_dsn(webmail.database)};
$config['des_key'] = trim(file_get_contents('{SESSION_KEY_FILE}'));

// The certificate has the public name; pods connect to the Service.
$config['imap_host'] = 'ssl://{server}:{IMAPS.port}';
$config['imap_conn_options'] = ['ssl' => ['verify_peer' => true, 'verify_peer_name' => true, 'peer_name' => {name}]];
$config['smtp_host'] = 'ssl://{server}:{SUBMISSIONS.port}';
$config['smtp_conn_options'] = $config['imap_conn_options'];
$config['smtp_user'] = '%u';
$config['smtp_pass'] = '%p';

// Sessions of the browser: over TLS only, which ends at the Ingress.
$config['use_https'] = true;
$config['trusted_host_patterns'] = [{_text(webmail.host)}];
$config['log_logins'] = true;

{_client_address(site, webmail)}
$config['max_message_size'] = {limit};
$config['plugins'] = [{plugins}];
"""
    if "managesieve" in webmail.plugins:
        text += f"""
$config['managesieve_host'] = 'tls://{server}:{MANAGESIEVE_PORT}';
$config['managesieve_conn_options'] = $config['imap_conn_options'];
$config['managesieve_vacation'] = 1;
"""
    if "enigma" in webmail.plugins:
        text += f"\n$config['enigma_pgp_homedir'] = '{ENIGMA_DIR}';\n"
    if webmail.extra_config:
        text += f"\n{webmail.extra_config.rstrip()}\n"
    return text + (f"\nrequire '{EXTRA_FILE}';\n" if webmail.extra_secret else "")


def php_ini(site: Site) -> str:
    """PHP's limits. An attachment grows by a third in a message, so the largest is three quarters of one."""
    limit = in_bytes(site.mail.message_size_limit)
    return f"upload_max_filesize = {limit * 3 // 4}\npost_max_size = {limit}\nmemory_limit = 256M\n"


def _client_address(site: Site, webmail: Webmail) -> str:
    """PHP that lets Roundcube, its log and plugins that count failed logins see the browser's address.

    Roundcube compares with single addresses, and those of an Ingress controller's pods change. So each request lists what it came
    through, as far as that is in the proxies' networks; the first address outside of them, seen from here, is the client's.
    """
    proxies = webmail.ingress.proxies if webmail.ingress.proxies is not None else site.cluster.pod_networks
    networks = ", ".join(f"[{_text(str(network.network_address))}, {network.prefixlen}]" for network in proxies)
    return f"""\
// Whose X-Forwarded-For is believed: the Ingress controller's.
$is_proxy = static function ($address) {{
    foreach ([{networks}] as [$network, $bits]) {{
        [$one, $other] = [@inet_pton($address), inet_pton($network)];
        [$bytes, $mask] = [$bits >> 3, chr(0xFF00 >> ($bits & 7) & 0xFF)];
        if ($one !== false && strlen($one) === strlen($other) && substr($one, 0, $bytes) === substr($other, 0, $bytes)
            && (substr($one, $bytes, 1) & $mask) === (substr($other, $bytes, 1) & $mask)) {{
            return true;
        }}
    }}
    return false;
}};
$hops = [$_SERVER['REMOTE_ADDR'] ?? '', ...array_map('trim', explode(',', $_SERVER['HTTP_X_FORWARDED_FOR'] ?? ''))];
$config['proxy_whitelist'] = array_values(array_filter($hops, $is_proxy));
unset($is_proxy, $hops);
"""


def _dsn(database: Database) -> str:
    """A PHP expression. A password may hold what a URL may not."""
    if database.type == "sqlite":
        return _text(f"sqlite:///{DATABASE_DIR}/{DATABASE_FILE}?mode=0640")
    place = f"@{database.host}:{database.server_port}/{database.name}"
    password = f"rawurlencode(trim(file_get_contents('{PASSWORD_FILE}')))"
    return f"{_text(f'{database.type}://{database.user}:')} . {password} . {_text(place)}"


def _text(value: str) -> str:
    """A PHP text that nothing in it can end."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
