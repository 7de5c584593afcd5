#!/bin/sh
# Installs the Debian packages that tests and lint need, where root may; elsewhere says which are missing and goes on.
set -eu

# php-cgi keeps Apache from being installed with Roundcube.
packages="bind9 bind9-utils busybox ca-certificates chromium chromium-driver composer crowdsec curl debootstrap dovecot-auth-lua dovecot-imapd
  dovecot-lmtpd dovecot-managesieved dovecot-sieve haproxy iproute2 mariadb-server netcat-openbsd nftables nginx-light
  openssh-client openssh-server openssl php-cgi php-cli php-sqlite3 php-xml postfix postfix-pcre postgresql postsrsd procps
  prometheus prometheus-alertmanager prometheus-blackbox-exporter prometheus-pushgateway python3 redis-server restic roundcube-core
  roundcube-plugins roundcube-sqlite3 rspamd rsyslog shellcheck util-linux"

missing=""
for package in $packages; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "not installed, so what needs them is skipped:$missing" >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# A daemon that installs itself must not start itself: the tests start their own.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
trap 'rm -f /usr/sbin/policy-rc.d' EXIT
# With this file there, CrowdSec does not introduce itself to its makers' API when it is installed.
mkdir -p /etc/crowdsec
[ -e /etc/crowdsec/online_api_credentials.yaml ] || echo '# not registered' >/etc/crowdsec/online_api_credentials.yaml
# shellcheck disable=SC2086 # a list of words
apt-get install -y -qq --no-install-recommends $missing >/dev/null
