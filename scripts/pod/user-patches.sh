#!/bin/bash
# The image runs this last in its set-up, before any daemon, and ignores how it ends: the startup probe looks for the file that
# is made at its end. What mail depends on comes first.
set -euo pipefail

config=${CONFIG_DIR:-/tmp/docker-mailserver}
mail=${MAIL_DIR:-/var/mail}
bin=${BIN_DIR:-/usr/local/sbin}
scripts=${SCRIPTS_DIR:-/scripts}
syslog=${SYSLOG_DIR:-/etc/rsyslog.d}
ended=${RUN_DIR:-/run}/user-patches.ended
rm -f "$ended"

# postsrsd closes every descriptor it might have inherited. Where a runtime sets no limit that is 2^30 of them: minutes of a
# busy processor, and every mail waits. The image starts it by name, so a namesake earlier on PATH can bound it.
if [[ ${ENABLE_SRS:-0} == 1 ]]; then
  cat >"$bin/postsrsd" <<'WRAPPER'
#!/bin/sh
ulimit -n 1024
exec /usr/sbin/postsrsd "$@"
WRAPPER
  chmod 755 "$bin/postsrsd"
fi

# A PROXY twin is its stock service, option by option, under another port and name, plus the header. Five seconds without
# a header end a connection, so that silent peers cannot fill the process table.
twin() { # stock service, port, syslog name
  local maxproc daemon option
  read -r _ _ _ _ _ _ maxproc daemon _ < <(postconf -M "$1/inet")
  postconf -M "$2/inet=$2 inet n - n - $maxproc $daemon"
  postconf -P | sed -n "s|^$1/inet/|$2/inet/|p" | while IFS= read -r option; do
    postconf -P "$option"
  done
  postconf -P "$2/inet/syslog_name=$3" \
    "$2/inet/${daemon}_upstream_proxy_protocol=haproxy" \
    "$2/inet/${daemon}_upstream_proxy_timeout=5s"
  if [[ $daemon == postscreen ]]; then
    # It locks its cache: two of them on one file shut each other out.
    # shellcheck disable=SC2016 # Postfix expands it
    postconf -P "$2/inet/postscreen_cache_map=btree:"'$data_directory/postscreen_proxy_cache'
  fi
}
while read -r service port name; do
  twin "$service" "$port" "$name"
done <"$config/proxy-listeners.txt"

# The probes' own Postfix service: every greeting takes a new process of its master, and no limit of clients applies. Neither
# it nor the probes' visits to postscreen are worth a line in the log, every few seconds.
alive=127.0.0.1:$(sed -n 's/^--postfix=//p' "$config/alive.txt")
postconf -M "$alive/inet=$alive inet n - n - 1 smtpd"
postconf -P "$alive/inet/syslog_name=postfix/alive" "$alive/inet/max_use=1" "$alive/inet/smtpd_peername_lookup=no" \
  "$alive/inet/smtpd_client_event_limit_exceptions=127.0.0.0/8" "$alive/inet/smtpd_client_restrictions=reject" \
  "$alive/inet/smtpd_milters="
cat >"$syslog/alive.conf" <<'RULES'
:syslogtag, startswith, "postfix/alive/" stop
:msg, ereregex, "(CONNECT from|HANGUP after [0-9.]+ from|DISCONNECT) \\[127\\.0\\.0\\.1\\]:" stop
RULES

# Before the image's own list of passwords (10-auth.conf); its local.conf would come behind.
if [[ -e $config/app-passwords.cf ]]; then
  cp "$config/app-passwords.cf" "${DOVECOT_DIR:-/etc/dovecot}/conf.d/05-app-passwords.conf"
fi

if [[ -e $config/any-from.txt ]]; then
  cp "$scripts/own_from.lua" "${RSPAMD_DIR:-/etc/rspamd}/rspamd.local.lua"
fi

# Declared Sieve scripts run before the mailbox's own. Compiled here, because mail's user may not write beside them; one that
# cannot be compiled costs its mailbox the sorting, and no one else anything.
for script in "$config"/sieve/*.sieve; do
  [[ ! -e $script ]] || sievec "$script" || echo "user-patches: ${script##*/} is not valid Sieve" >&2
done

# They were once installed as the mailbox's own script, with a mark beside them. A script that a user put there stays.
while IFS='|' read -r login _; do
  home=$mail/${login##*@}/${login%@*}/home
  [[ ! -e $home/.dovecot.sieve.declared ]] || rm -f "$home"/.dovecot.{sieve,svbin,sieve.declared}
done <"$config/postfix-accounts.cf"

# Nothing waits for the pulse; while it is ended, an alert says so.
if [[ -e $config/pulse.txt ]]; then
  while :; do
    setpriv --reuid=65534 --regid=65534 --clear-groups python3 -B "$scripts/pulse.py" "@$config/pulse.txt" || true
    sleep 60
  done </dev/null >/dev/null 2>&1 &
fi

touch "$ended"
