"""What a preview says beyond the plan."""

from components.notices import notes, warnings


def said(site) -> str:
    return "\n".join(warnings(site))


def test_an_image_without_a_digest_is_named_in_production_only(site):
    pinned = "docker.io/mailserver/docker-mailserver:15.1.0@sha256:" + "0" * 64
    assert "not pinned by digest" in said(site("prod"))
    assert "mail.image" not in said(site("prod", {"mail/image": pinned}))
    assert "not pinned by digest" not in said(site("prod", {"production": False}))


def test_unknown_tunnel_addresses_are_named_with_their_price(site):
    assert "no tunnel_address for k8s-node1, k8s-node2, k8s-node3, k8s-node4" in said(site("prod"))
    assert "tunnel_address" not in said(site("prod", {"cluster/traffic_policy": "Local"}))
    assert "tunnel_address" not in said(site("dev"))


def test_a_mailbox_whose_mail_the_catch_all_takes_is_named(site):
    assert "takes the mail of truenas@viktorbarzin.me unless the secret store" in said(site("prod"))
    aliased = site("prod", {"mail/aliases/truenas@viktorbarzin.me": ["truenas@viktorbarzin.me"]})
    assert "takes the mail" not in said(aliased)


def test_external_forwards_are_named_with_the_relay_and_without_srs(site):
    forward = {"mail/aliases/x@viktorbarzin.me": ["x@example.com"]}
    assert "x@viktorbarzin.me forwards through smtp-relay.brevo.com" in said(site("prod", forward))
    assert "fail SPF" not in said(site("prod", forward))
    assert "forwards of x@viktorbarzin.me fail SPF" in said(site("prod", {**forward, "mail/srs": False}))


def test_a_sender_whose_replies_nobody_gets_is_named(site):
    granted = "mail/mailboxes/bob@example.org/send_as"
    assert "nobody gets the replies to news@example.net" in said(site("dev", {granted: ["news@example.net"]}))
    assert "nobody gets the replies to news@example.org" not in said(site("dev", {granted: ["news@example.org"]}))  # its catch-all does
    aliased = {granted: ["news@example.net"], "mail/aliases/news@example.net": ["bob@example.org"]}
    assert "nobody gets" not in said(site("dev", {**aliased, "mail/mailboxes/alice@example.org/send_as": []}))


def test_a_preview_says_which_traffic_policy_holds_and_what_it_leaves_open(site):
    assert any("claim any client address" in note for note in notes(site("prod")))
    local = list(notes(site("prod", {"cluster/traffic_policy": "Local"})))
    assert any("only from the firewall" in note for note in local)
    assert not any("claim any client address" in note for note in local)
    assert any("nothing bans attackers" in note for note in local)


def test_jobs_that_prove_nothing_are_named(site):
    assert "jobs.backup: is off" in said(site("prod", {"jobs/backup": None, "jobs/webmail_backup": None}))
    assert "jobs.backup.drill: is off" in said(site("prod", {"jobs/backup/drill": None}))
    assert "jobs.backup" not in said(site("prod"))


def test_the_relays_quota_is_counted_by_the_schedules(site):
    both = {"jobs/probe/outbound": {"recipient": "loop@example.com"}, "jobs/probe/schedule": "*/30 * * * *"}
    assert any("takes 72 of the 300" in note for note in notes(site("prod", both)))
    assert not any("the probe takes" in note for note in notes(site("prod", {"jobs/probe": None})))


def test_what_was_copied_from_an_example_is_named_in_production(site):
    copied = said(site("dev", {"production": True}))
    assert "edge.address 192.0.2.1" in copied
    assert "dns.hosts.mail.example.org 2001:db8::25" in copied
    assert "domains.example.net" in copied
    assert "made for examples" not in said(site("dev")) + said(site("prod"))
    own = site(
        "prod", {"domains/myexample.org": {}, "primary_domain": "viktorbarzin.me", "tls/names": ["*.viktorbarzin.me", "mail.myexample.org"]}
    )
    assert "made for examples" not in said(own)


def test_secrets_that_nobody_makes_are_named_with_their_keys(site):
    def by_hand(*arguments):
        return next(note for note in notes(site(*arguments)) if note.startswith("not made here"))

    assert "mailserver-accounts (accounts), mailserver-dkim (example.org.mail), mail-tls (tls.crt, tls.key);" in by_hand("dev")
    assert "mailserver-accounts" not in by_hand("prod")
    named = ("mail/accounts", "mail/relay/credentials", "jobs/probe/credentials")
    alone = by_hand("prod", {f"{name}/source": None for name in named})
    for expected in (
        "mailserver-relay (sasl_passwd)",
        "mailserver-probe-secrets (BREVO_API_KEY, EMAIL_MONITOR_IMAP_PASSWORD)",
        "mailserver-retention (spam_at_viktorbarzin.me)",
    ):
        assert expected in alone
