"""Names in the cluster that other objects, clients and parsers of logs rely on."""

MAIL_SERVER = "mailserver"  # the Deployment, its Service, its NetworkPolicy, and `app` of its pods
SELECTOR = {"app": MAIL_SERVER}  # of the live Deployment: changing it replaces the object
CONTAINER = "docker-mailserver"  # of the Deployment; its log files are named by it
PROXY_SERVICE = f"{MAIL_SERVER}-proxy"
LEGACY_SERVICE = f"{MAIL_SERVER}-legacy"
WEBMAIL = "roundcubemail"  # the Deployment, its Service, and `app` of its pods
WEBMAIL_SELECTOR = {"app": WEBMAIL}
