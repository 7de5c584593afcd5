"""The mail server's pod: the image's set-up as facts, in the image's order, around the rendered files and the real scripts."""

import hashlib
import json
import re
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from components.errors import UserError
from components.listeners import MANAGESIEVE_PORT
from components.mail.image import CONFIG_DIR, VMAIL
from components.settings.site import Site
from tools.lab import facts, quotas
from tools.lab.facts import Fact, nested
from tools.lab.hosts import PATH, Daemon, Host, set_back, wait_for
from tools.lab.majors import MAJORS
from tools.lab.patterns import patterns
from tools.lab.pod import RenderedPod

LOG = "/var/log/mail/mail.log"


@dataclass
class Secrets:
    """What the secret store holds, in plain text."""

    accounts: dict[str, str]
    dkim: dict[str, str] = field(default_factory=dict)
    relay: str | None = None
    aliases: str | None = None
    app_passwords: dict[str, dict[str, str]] = field(default_factory=dict)
    client_secret: str | None = None

    def by_name(self, site: Site) -> dict[str, dict[str, str]]:
        """Each Secret's keys (docs/settings.md says which), by its name in the settings."""
        mail = site.mail
        held = {mail.accounts.name: {"accounts": json.dumps(self.accounts)}, mail.dkim.name: self.dkim}
        optional = (
            (mail.relay and mail.relay.credentials, "sasl_passwd", self.relay),
            (mail.stored_aliases, "aliases", self.aliases),
            (mail.app_passwords, "app_passwords", json.dumps(self.app_passwords)),
            (mail.oauth and mail.oauth.client_secret, "client_secret", self.client_secret),
        )
        return held | {secret.name: {key: text} for secret, key, text in optional if secret and text is not None}


class MailServer:
    """The pod on a host. A test may change what is `rendered`, to see what breaks."""

    def __init__(self, host: Host, site: Site, secrets: Secrets, certificate: tuple[str, str], nameserver: str) -> None:
        self.host, self.secrets = host, secrets
        self.render(site)
        self.domain = site.hostname.partition(".")[2]
        self.daemons: dict[str, Daemon] = {}
        self.said = ""  # the init container's words
        self._sums: dict[str, str] = {}
        self._machine(nameserver)
        self.mount_certificate(*certificate)

    def render(self, site: Site) -> None:
        """Another site's pod on the same machine; its init container runs by `assemble`."""
        self.site, self.rendered = site, RenderedPod(site)
        self.environment = self.rendered.environment
        self.major, self.quotas = MAJORS[site.mail.image_major], quotas.BY_MAJOR[site.mail.image_major]

    def on(self, variable: str) -> bool:
        return self.environment[variable] == "1"

    # What Kubernetes does before the image runs.

    def _machine(self, nameserver: str) -> None:
        host = self.host
        host.write("/etc/resolv.conf", f"nameserver {nameserver}\noptions timeout:1 attempts:1\n")
        host.write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost\n")
        for name in ("passwd", "group"):
            entry = f"docker:x:{VMAIL}:" if name == "group" else f"docker:x:{VMAIL}:{VMAIL}::/home/docker:/bin/bash"
            host.write(f"/etc/{name}", host.path(f"/etc/{name}").read_text() + entry + "\n")
        modules = 'module(load="imuxsock")\nmodule(load="builtin:omfile" fileCreateMode="0640")\n'
        host.write("/etc/rsyslog.conf", f"{modules}$IncludeConfig /etc/rsyslog.d/*.conf\nmail.* -{LOG}\n")
        host.run("sh", "-c", "mkdir -p /etc/rsyslog.d && rm -f /etc/rsyslog.d/*")  # the machine's own
        host.run("mkdir", "-p", *self.rendered.folders)

    def mount_certificate(self, certificate: str, key: str) -> None:
        """As the kubelet fills a Secret volume: a new folder, a link turned over in one step, and links to the files through it."""
        volume = self.host.path(self.rendered.certificate)
        fresh = f"..{time.time_ns()}"
        (volume / fresh).mkdir(parents=True)
        (volume / fresh / "tls.crt").write_text(certificate)
        (volume / fresh / "tls.key").write_text(key)
        (volume / "..data_tmp").symlink_to(fresh)
        (volume / "..data_tmp").rename(volume / "..data")
        for name in ("tls.crt", "tls.key"):
            if not (volume / name).is_symlink():
                (volume / name).symlink_to(f"..data/{name}")

    def assemble(self) -> None:
        """The init container: Kubernetes mounts the volumes, then it runs as the Deployment says."""
        held = self.secrets.by_name(self.site)
        mounts = {path: (files, 0o644) for path, files in self.rendered.config_maps.items()}
        mounts |= {path: (held.get(name, {}), mode) for path, (name, mode) in self.rendered.secrets.items()}
        for path, (files, mode) in mounts.items():
            self.host.run("sh", "-c", f"rm -rf {path}/*")
            for file, text in files.items():
                self.host.write(f"{path}/{file}", text, mode)
        self.said = self.host.run(*self.rendered.command).stderr

    # The image's set-up, in its order.

    def set_up(self) -> None:
        self._dovecot()
        self._accounts()
        self._postfix_base()
        self._rspamd()
        self._certificates()
        self._postfix()
        self._overrides()
        if self.on("ENABLE_SRS"):
            self._srs()
        self._permissions()
        self.user_patches()
        self._sums = self._monitored()

    def _dovecot(self) -> None:
        learn = self.major.dovecot_learn if self.on("RSPAMD_LEARN") else ()
        sieve_port = facts.DOVECOT_MANAGESIEVE if self.on("ENABLE_MANAGESIEVE") else ()
        limits = self.quotas.dovecot if self.on("ENABLE_QUOTAS") else ()
        text = nested((*self.major.dovecot, *sieve_port, *learn, *limits, *self.major.dovecot_tls))
        text = text.replace("$HOSTNAME", self.site.hostname).replace("$POSTMASTER_ADDRESS", self.environment["POSTMASTER_ADDRESS"])
        text = text.replace("$LARGEST", f"{int(self.environment['POSTFIX_MESSAGE_SIZE_LIMIT']) // quotas.MEGABYTE}M")
        host = self.host
        host.write(quotas.WARNING_SCRIPT, quotas.WARNING.format(no_limit=self.quotas.no_limit), 0o755)
        host.run("sh", "-c", "rm -f /etc/dovecot/conf.d/*")  # the package's own
        text = re.sub(r"\A(?:dovecot_.*\n)*", r"\g<0>!include_try conf.d/*.conf\n", text) + "!include_try local.conf\n"
        host.write("/etc/dovecot/dovecot.conf", text)  # in the image most of it is in conf.d
        host.write("/etc/dovecot/local.conf", host.path(f"{CONFIG_DIR}/dovecot.cf").read_text())
        host.run("openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe4096", "-out", "/etc/dovecot/dh.pem")
        sieve = "/usr/lib/dovecot/sieve-global"
        host.run("mkdir", "-p", f"{sieve}/before", "/usr/lib/dovecot/sieve-pipe", "/usr/lib/dovecot/sieve-filter")
        scripts = {f"{sieve}/after/{self.major.junk_script}": facts.SPAM_TO_JUNK}
        if learn:
            scripts |= {f"/usr/lib/dovecot/sieve-pipe/learn-{kind}.sieve": facts.learn_script(f"learn_{kind}") for kind in ("spam", "ham")}
            host.run("ln", "-sf", "/usr/bin/rspamc", "/usr/lib/dovecot/sieve-pipe/rspamc")
        for path, script in scripts.items():
            host.write(path, script)
            host.run("sievec", path)
            set_back(host.path(path), 2)
        host.run("chown", "-R", "dovecot:root", sieve, "/usr/lib/dovecot/sieve-pipe")

    def _accounts(self) -> None:
        """Users, their mailboxes and their Sieve scripts from postfix-accounts.cf."""
        host, boxes = self.host, ""
        accounts, aliases = (host.path(f"{CONFIG_DIR}/postfix-{name}.cf").read_text().splitlines() for name in ("accounts", "virtual"))
        limits = host.path(f"{CONFIG_DIR}/dovecot-quotas.cf").read_text().splitlines() if self.on("ENABLE_QUOTAS") else None
        for login in (line.partition("|")[0] for line in accounts):
            name, domain = login.split("@")[:2]
            home = f"/var/mail/{domain}/{name}/home"
            boxes += f"{login} {domain}/{name}/\n"
            host.run("mkdir", "-p", home)
            script = host.path(f"{CONFIG_DIR}/{login}.dovecot.sieve")
            if script.exists():
                host.write(f"{home}/.dovecot.sieve", script.read_text())
        host.write("/etc/postfix/vmailbox", boxes)
        users = quotas.user_list(accounts, aliases, limits, self.quotas)
        host.write("/etc/dovecot/userdb", "".join(f"{user}\n" for user in users), 0o640)
        host.run("chown", "dovecot:dovecot", "/etc/dovecot/userdb")

    def _postfix_base(self) -> None:
        host = self.host
        host.write("/etc/postfix/master.cf", host.path("/etc/postfix/master.cf.proto").read_text())
        host.write("/etc/postfix/main.cf", "")
        host.settle_postfix()
        rows = (f"{fact.name}={fact.name.replace('/', ' ')} {fact.value}" for fact in facts.POSTFIX_MASTER)
        host.run("postconf", "-MX", "pickup/unix")  # Debian's; the image has a fifo
        host.run("postconf", "-M", *rows)
        for service in host.run("postconf", "-F", "*/*/chroot").stdout.splitlines():
            if service.endswith("= y"):
                host.run("postconf", "-F", service.replace(" = y", " = n"))  # Debian's chroots are off in the image
        for service, options in facts.POSTFIX_SERVICE_OPTIONS.items():
            host.run("postconf", "-P", *(f"{service}/{option.name}={option.value}" for option in options))
        self._postconf((*self.major.postfix_main, *([quotas.POLICY] if self.on("ENABLE_QUOTAS") else [])))
        host.write("/etc/postfix/maps/header_checks.pcre", "")
        host.write("/etc/postfix/maps/sender_header_filter.pcre", "".join(f"{row.name} {row.value}\n" for row in facts.HEADER_FILTER))
        host.write("/etc/postfix/maps/sender_login_maps.pcre", f"{facts.SENDER_LOGIN.name} {facts.SENDER_LOGIN.value}\n")
        host.run("cp", "/etc/dovecot/dh.pem", "/etc/postfix/dhparams.pem")

    def _postconf(self, rows: Iterable[Fact]) -> None:
        self.host.run("postconf", *(f"{row.name}={row.value}" for row in rows))
        self.host.settle_postfix()

    def _rspamd(self) -> None:
        host = self.host
        host.run("sh", "-c", "rm -rf /etc/rspamd/local.d /etc/rspamd/override.d && mkdir -p /etc/rspamd/local.d /etc/rspamd/override.d")
        files = dict(facts.RSPAMD)
        if self.on("ENABLE_RSPAMD_REDIS"):
            files |= self.major.rspamd_redis
            redis = host.path("/etc/redis/redis.conf")
            kept = [line for line in redis.read_text().splitlines() if not line.startswith(tuple(f"{row.name} " for row in facts.REDIS))]
            changed = [f"{row.name} {row.value}" for row in facts.REDIS]
            redis.write_text("\n".join([*(line for line in kept if not line.startswith("logfile")), *changed, 'logfile ""', ""]))
        for name, rows in files.items():
            host.write(f"/etc/rspamd/local.d/{name}", nested(rows, end=";"))
        for module in facts.RSPAMD_DISABLED:
            host.write(f"/etc/rspamd/local.d/{module}.conf", "enabled = false;\n")
        host.run("sh", "-c", f"cp {CONFIG_DIR}/rspamd/override.d/* /etc/rspamd/override.d/ 2>/dev/null || true")
        self._older_rspamd()
        self._postconf([Fact("rspamd_milter", "inet:localhost:11332", ""), Fact("smtpd_milters", "$rspamd_milter", "")])

    def _older_rspamd(self) -> None:
        """Debian's Rspamd (3.4) cannot tell a relay by its address, which 3.6 learned; there the lab names it instead."""
        host = self.host
        rules = host.path("/etc/rspamd/override.d/external_relay.conf")
        if rules.exists() and "ip_map" not in host.path("/usr/share/rspamd/plugins/external_relay.lua").read_text():
            text = re.sub(r"ip_map = \[.*\]", "ip_map", rules.read_text().replace('"ip_map"', '"hostname_map"'))
            for relay in self.site.mail.trusted_relays:
                text = text.replace("ip_map;", f'hostname_map = ["{relay.name}.{self.site.primary}"];', 1)
            rules.write_text(text)

    def _certificates(self) -> None:
        """SSL_TYPE=manual: the mounted files are copied, and the copies are what daemons read."""
        host = self.host
        host.run("mkdir", "-p", "/etc/dms/tls")
        host.run("install", "-m", "600", self.environment["SSL_KEY_PATH"], "/etc/dms/tls/key")
        host.run("install", "-m", "644", self.environment["SSL_CERT_PATH"], "/etc/dms/tls/cert")
        self._postconf([Fact("smtpd_tls_chain_files", "/etc/dms/tls/key /etc/dms/tls/cert", "")])

    def _postfix(self) -> None:
        host, env = self.host, self.environment
        if env["PERMIT_DOCKER"] == "none":
            self._postconf([Fact("mynetworks", "", "")])
        host.write("/etc/mailname", f"{self.domain}\n")
        self._postconf([Fact("myhostname", self.site.hostname, ""), Fact("mydomain", self.domain, "")])
        self._aliases()
        self._postconf([Fact("message_size_limit", env["POSTFIX_MESSAGE_SIZE_LIMIT"], ""), Fact("virtual_mailbox_limit", "0", "")])
        if self.on("SPOOF_PROTECTION"):
            maps = (
                "texthash:/etc/postfix/virtual, hash:/etc/aliases, pcre:/etc/postfix/maps/sender_login_maps.pcre, pcre:/etc/postfix/regexp"
            )
            self._postconf([Fact("smtpd_sender_login_maps", f"unionmap:{{ {maps} }}", "")])
        else:
            self._postconf([Fact("mua_sender_restrictions", "$dms_smtpd_sender_restrictions", "")])
        if "DEFAULT_RELAY_HOST" in env:
            self._relay(env["DEFAULT_RELAY_HOST"])

    def _aliases(self) -> None:
        host = self.host
        virtual = host.path(f"{CONFIG_DIR}/postfix-virtual.cf").read_text()
        host.write("/etc/postfix/virtual", virtual)
        host.write("/etc/postfix/regexp", "")
        host.write("/etc/aliases", f"root: {self.environment['POSTMASTER_ADDRESS']}\n")
        host.run("postalias", "/etc/aliases")
        names = [line.split()[0] for line in virtual.splitlines()]
        names += [line.split()[0] for line in host.path("/etc/postfix/vmailbox").read_text().splitlines()]
        host.write("/etc/postfix/vhost", "".join(f"{domain}\n" for domain in sorted({name.partition("@")[2] for name in names})))

    def _relay(self, next_hop: str) -> None:
        host = self.host
        self._postconf([Fact("relayhost", next_hop, "")])
        passwords = host.path(f"{CONFIG_DIR}/postfix-sasl-password.cf")
        if not passwords.exists():
            return  # the image warns and goes on without a password
        host.write("/etc/postfix/sasl_passwd", passwords.read_text(), 0o600)
        host.write("/etc/postfix/relayhost_map", "", 0o600)
        self._postconf(
            [
                Fact("smtp_sender_dependent_authentication", "yes", ""),
                Fact("smtp_sasl_password_maps", "texthash:/etc/postfix/sasl_passwd", ""),
                Fact("smtp_sasl_auth_enable", "yes", ""),
                Fact("smtp_sasl_security_options", "noanonymous", ""),
                Fact("smtp_tls_security_level", "encrypt", ""),
                Fact("sender_dependent_relayhost_maps", "texthash:/etc/postfix/relayhost_map", ""),
            ]
        )

    def _overrides(self) -> None:
        """postfix-master.cf option by option; postfix-main.cf goes behind main.cf, and `postconf -n` keeps of it what it knows."""
        host = self.host
        for option in host.path(f"{CONFIG_DIR}/postfix-master.cf").read_text().splitlines():
            host.run("postconf", "-P", option)
        main = host.path("/etc/postfix/main.cf")
        main.write_text(main.read_text() + host.path(f"{CONFIG_DIR}/postfix-main.cf").read_text())
        host.settle_postfix()
        kept = host.run("postconf", "-n")
        if unexpected := [line for line in kept.stderr.splitlines() if "overriding earlier entry" not in line]:
            raise UserError("postfix-main.cf: " + "; ".join(unexpected))
        main.write_text(kept.stdout)
        host.settle_postfix()

    def _srs(self) -> None:
        host = self.host
        self._postconf(facts.POSTFIX_SRS)
        values = {"$DOMAINNAME": self.domain, "$SRS_EXCLUDE_DOMAINS": self.environment.get("SRS_EXCLUDE_DOMAINS", "")}
        host.write("/etc/default/postsrsd", "".join(f"{row.name}={values.get(row.value, row.value)}\n" for row in facts.POSTSRSD))
        host.run("sh", "-c", "umask 077; head -c 24 /dev/urandom | base64 -w0 > /etc/postsrsd.secret")

    def _permissions(self) -> None:
        self.host.run("chown", "-R", "docker:docker", "/var/mail")
        self.host.run("sh", "-c", f"[ ! -d {CONFIG_DIR}/rspamd/dkim ] || chown -R _rspamd:_rspamd {CONFIG_DIR}/rspamd/dkim")
        self.host.run("chmod", "+x", CONFIG_DIR)

    def user_patches(self) -> None:
        """The last step before any daemon. The image ignores how it ends; the lab does not."""
        self.host.run("/bin/bash", f"{CONFIG_DIR}/user-patches.sh", env=self.environment)

    # The image's daemons.

    def start(self, *names: str) -> None:
        with patterns(self.host.path("/var/lib/rspamd"), self.site.mail.image_major):
            for name in names or self.expected_daemons():
                if name == "postfix":
                    self.host.settle_postfix()
                command = facts.COMMANDS[name]
                self.daemons[name] = self.host.spawn(name, *command, env=self.environment | {"PATH": PATH})
            if not names:
                self.wait_until_ready()

    def expected_daemons(self) -> list[str]:
        optional = {"rspamd-redis": "ENABLE_RSPAMD_REDIS", "rspamd": "ENABLE_RSPAMD", "postsrsd": "ENABLE_SRS"}
        return [name for name in facts.COMMANDS if name not in optional or self.on(optional[name])]

    def wait_until_ready(self) -> None:
        ports = [port for twin in self.site.listeners for port in (twin.port, twin.proxy_port)] + [11332]
        ports += [MANAGESIEVE_PORT] if self.on("ENABLE_MANAGESIEVE") else []
        wait_for(f"ports {ports} of the mail server", lambda: self._ended() or self.listening(*ports), 300)
        if ended := self._ended():
            raise UserError(f"{ended} ended: {self.daemons[ended].output.read_text(errors='replace')[-1000:]}")

    def _ended(self) -> str | None:
        """A daemon that is not running any more."""
        return next((name for name, daemon in self.daemons.items() if not daemon.running()), None)

    def listening(self, *ports: int) -> bool:
        rows = self.host.run("ss", "-Hltn").stdout.splitlines()
        open_ports = {int(row.split()[3].rpartition(":")[2]) for row in rows}
        return open_ports.issuperset(ports)

    def stop(self, *names: str) -> None:
        for name in names or [name for name in reversed(facts.COMMANDS) if name in self.daemons]:
            if name == "postfix":
                self.host.run("postfix", "stop", check=False)
            self.daemons.pop(name).stop(signal.SIGTERM)

    def kill(self) -> None:
        """Every process at the same moment, as when the node dies or the memory limit is hit; `restart` makes the next pod."""
        self.host.run("bash", "-c", "kill -KILL -1")  # all but the caller and the host's first process
        for daemon in self.daemons.values():
            daemon.process.wait()
        self.daemons.clear()

    def restart(self) -> None:
        """A new pod on the same volumes: the container's files are made again, mail, queue and state stay. What still ran ends with it."""
        self.stop()
        self.kill()
        self.assemble()
        self.set_up()
        self.start()

    # The image's change detector.

    def _monitored(self) -> dict[str, str]:
        paths = [f"{CONFIG_DIR}/{name}" for name in ("postfix-accounts.cf", "postfix-virtual.cf", "postfix-sasl-password.cf")]
        paths += [self.environment["SSL_CERT_PATH"], self.environment["SSL_KEY_PATH"]]
        found = self.host.run("sha512sum", "--", *paths, check=False).stdout
        return {path: digest for digest, path in (line.split(maxsplit=1) for line in found.splitlines())}

    def detect_changes(self) -> list[str]:
        """One round of the detector: what it saw, after it has acted on it. It looks at contents, through links."""
        sums = self._monitored()
        changed = [path for path, digest in sums.items() if self._sums.get(path) != digest]
        if not changed:
            return []
        if any(path.startswith(self.rendered.certificate) for path in changed):
            self._certificates()
        if any("postfix-" in path for path in changed):
            self._accounts()
            self._aliases()
            self._permissions()
        if any("sasl-password" in path for path in changed):
            self._relay(self.environment["DEFAULT_RELAY_HOST"])
        self.host.settle_postfix()
        self.host.run("postfix", "reload")
        self.host.run("dovecot", "reload")
        self._sums = sums
        return changed

    def log(self) -> str:
        path = self.host.path(LOG)
        return path.read_text(errors="replace") if path.exists() else ""

    def fingerprint(self, *paths: str) -> str:
        """One digest over files, to tell whether a second run changed any."""
        digest = hashlib.sha256()
        for path in paths:
            digest.update(self.host.path(path).read_bytes())
        return digest.hexdigest()
