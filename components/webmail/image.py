"""What we rely on of the Roundcube image (apache/docker-entrypoint.sh): its folders, and the variables that steer its start."""

from components.names import WEBMAIL
from components.settings.site import Site
from components.settings.webmail import Webmail

USER = 33  # www-data
DOCUMENT_ROOT = "/var/www/html"
RELEASE_DIR = "/usr/src/roundcubemail"  # what an empty document root is filled from
CONFIG_DIR = "/var/roundcube/config"  # every *.php in it is included last
DATABASE_DIR = "/var/roundcube/db"
ENIGMA_DIR = "/var/roundcube/enigma"
SECRETS_DIR = "/run/secrets"
AFTER_SET_UP_DIR = "/entrypoint-tasks/post-setup"
PHP_DIR = "/var/roundcube/php"
PASSWORD_FILE = f"{SECRETS_DIR}/roundcube_db_password"
SESSION_KEY_FILE = f"{SECRETS_DIR}/roundcube_des_key"
EXTRA_FILE = f"{SECRETS_DIR}/roundcube_extra.php"

# An image that finds Roundcube in its document root updates it there, with Composer and from the network. So each start
# of the container begins with an empty one.
START = ("sh", "-c", f"find {DOCUMENT_ROOT} -mindepth 1 -delete && exec /docker-entrypoint.sh apache2-foreground")

LOGIN_FIELD = "rcmloginuser"  # id of the user's field in the login form
# PHP: ends with 0 where the first argument's page, asked for under the second's name (Roundcube complains of any other), has the form.
LOGIN_FORM = f"""\
$asked = stream_context_create(['http' => ['header' => "Host: $argv[2]", 'timeout' => 8]]);
exit(strpos((string) @file_get_contents($argv[1], false, $asked), '{LOGIN_FIELD}') ? 0 : 1);
"""

PLUGINS_DIR = "/plugins"  # the kept volume, as the installer sees it
PLUGINS_FOLDER = "plugin-sets"  # in that volume: a predecessor's document root may lie beside it
FOLDERS = {"plugins": PLUGINS_FOLDER}  # of the volumes, those that are not mounted as a whole
TARGET_DIR = "/release"
SCRIPTS_DIR = "/scripts"
INSTALLER, TABLES = "plugins.sh", "plugin-tables.php"


def port(webmail: Webmail) -> int:
    return 8000 if webmail.nonroot_image else 80


def environment(webmail: Webmail) -> dict[str, str]:
    """The variables of the container. The database's password is in none of them, and so in no file that the image writes."""
    variables = {"PHP_INI_SCAN_DIR": f":{PHP_DIR}"}  # nothing before the colon: the image's own files first
    database = webmail.database
    if database.type != "sqlite":
        variables |= {
            "ROUNDCUBEMAIL_DB_TYPE": database.type,
            "ROUNDCUBEMAIL_DB_HOST": str(database.host),
            "ROUNDCUBEMAIL_DB_PORT": str(database.server_port),
            # The image would write one with the password; custom.php has the last word.
            "ROUNDCUBEMAIL_DSNW": f"{database.type}://{database.user}@{database.host}:{database.server_port}/{database.name}",
        }
    return variables


def plugin_names(webmail: Webmail) -> list[str]:
    """Every plugin by its folder: roundcube/plugin-installer names it after the package, `_` for `-`."""
    return [*webmail.plugins, *(package.partition("/")[2].replace("-", "_") for package in webmail.composer_plugins)]


def service_host(site: Site) -> str:
    return f"{WEBMAIL}.{site.namespace}.svc.cluster.local"
