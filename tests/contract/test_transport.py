"""The way to the firewall: whom it trusts, what it says when it fails, and what it never says."""

import asyncio
import socket
import subprocess
import threading

import asyncssh
import pytest

from components.edge import client as client_module
from components.edge.client import COMMAND, AgentError, Firewall
from components.edge.desired import haproxy_set, rule_set
from components.edge.ssh import TransportError
from tests.contract.standin import wait

pytestmark = pytest.mark.contract


@pytest.fixture
def wanted(edge_site):
    return haproxy_set(edge_site())


def fails(firewall: Firewall, wanted, verb="read") -> str:
    with pytest.raises(TransportError) as error:
        firewall.call(verb, "haproxy", wanted)
    return str(error.value)


def test_another_host_key_is_never_spoken_to(firewall, wanted):
    other = " ".join((firewall.root / "ssh/unknown.pub").read_text().split()[:2])
    assert "another host key" in fails(firewall.client(host_key=other), wanted)
    assert firewall.logins() == 0


def test_a_firewall_with_keys_of_many_kinds_is_asked_for_the_pinned_one(firewall, wanted):
    """OpenSSH offers what the client asks for first; a pinned key of another kind must still match."""
    config = firewall.root / "ssh/sshd_config"
    key = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    key.write_private_key(firewall.root / "ssh/ecdsa")
    (firewall.root / "ssh/ecdsa").chmod(0o600)
    config.write_text("HostKey /ssh/ecdsa\n" + config.read_text())
    firewall.restart_sshd()
    pinned = " ".join(key.export_public_key().decode().split()[:2])
    for host_key in (firewall.host_key, pinned):
        assert firewall.client(host_key=host_key).call("read", "haproxy", wanted)["ok"]


def test_a_key_that_is_not_welcome(firewall, wanted):
    unknown = (firewall.root / "ssh/unknown").read_text()
    message = fails(firewall.client(key=unknown), wanted)
    assert "refuses the key" in message
    assert unknown.splitlines()[1] not in message


def test_a_text_that_is_not_a_key(firewall, wanted):
    message = fails(firewall.client(key="-----BEGIN CANARY-KEY----- hunter2"), wanted)
    assert "cannot be read" in message
    assert "hunter2" not in message


def test_a_key_from_a_file_and_from_an_agent(firewall, wanted, monkeypatch):
    assert Firewall(firewall.connection(key_file=str(firewall.root / "ssh/client"))).call("read", "haproxy", wanted)["ok"]
    assert "no such file" in fails(Firewall(firewall.connection(key_file="/nowhere/key")), wanted)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert "no key for the firewall" in fails(Firewall(firewall.connection()), wanted)
    sock = firewall.root / "ssh/agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", sock], stdout=subprocess.DEVNULL)
    try:
        wait(sock.exists)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
        subprocess.run(["ssh-add", "-q", firewall.root / "ssh/client"], check=True)
        assert Firewall(firewall.connection()).call("read", "haproxy", wanted)["ok"]
    finally:
        agent.terminate()
        agent.wait()


def test_what_the_firewall_prints_before_the_answer_does_no_harm(firewall, wanted):
    (firewall.root / "greeting").write_text("\x1b[1mWelcome\n{'ok': maybe}\nMAILSERVER-EDG almost\n\xff")
    assert firewall.client().call("read", "haproxy", wanted)["ok"]


def test_a_firewall_that_hangs_is_given_up(firewall, wanted, monkeypatch):
    (firewall.root / "hang").touch()
    monkeypatch.setitem(client_module.SECONDS, "read", 2)
    assert "within 2 seconds" in fails(firewall.client(), wanted)


def test_a_firewall_that_is_not_there(firewall, wanted):
    assert "Connection refused" in fails(firewall.client(port=2223), wanted)


def test_a_firewall_that_hangs_up(firewall, wanted):
    """Before it greets, and after the key was taken."""
    with socket.create_server((firewall.address, 2224)) as server:

        def hang_up() -> None:
            server.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        assert f"{firewall.address}:2224: Connection" in fails(firewall.client(port=2224), wanted)
        thread.join()
    firewall.swap_login("#!/bin/sh\nkill -9 $PPID\n")
    assert f"{firewall.address}:22: " in fails(firewall.client(), wanted, "apply")
    assert firewall.calls("read") == 0


def test_a_login_that_does_not_start_php(firewall, wanted):
    firewall.swap_login("#!/bin/sh\ncat >/dev/null\necho 'sh: /usr/local/bin/php: not found'\nexit 127\n")
    assert "PHP ended with code 127; it said: sh: /usr/local/bin/php: not found" in fails(firewall.client(), wanted)


def test_a_connection_that_breaks_while_the_program_is_sent_starts_nothing(firewall, wanted):
    """PHP gets every possible beginning of the program; only the whole of it does anything."""
    sent: list[bytes] = []

    def record(_connection, _key, _command, program, _seconds):
        sent.append(program)
        return b'MAILSERVER-EDGE {"ok": true}', 0

    real, client_module.exchange = client_module.exchange, record
    try:
        firewall.client().call("apply", "haproxy", wanted)
    finally:
        client_module.exchange = real
    (program,) = sent
    config = firewall.config_file.read_bytes()
    lines = program.splitlines(keepends=True)
    cuts = [sum(map(len, lines[:n])) for n in range(len(lines) - 1, 0, -97)] + [len(program) - 2, len(program) - 20, 1]
    for cut in cuts:
        firewall.feed(program[:cut])
    assert firewall.config_file.read_bytes() == config
    assert firewall.calls("read") == 0


def test_a_connection_that_breaks_during_an_apply_does_not_stop_it(firewall, wanted):
    """The change is carried to its end on the firewall, and the next run finds it done."""
    firewall.fault("test:after|usleep(1500000);")

    async def cut() -> None:
        key = asyncssh.import_private_key(firewall.private_key)
        async with asyncssh.connect(
            firewall.address, 22, username="root", client_keys=[key], known_hosts=None, agent_path=None, config=None
        ) as there:
            process = await there.create_process(COMMAND, encoding=None)
            process.stdin.write(firewall.program("apply", "haproxy", wanted))
            process.stdin.write_eof()
            while not firewall.calls("test:before"):
                await asyncio.sleep(0.02)
            there.abort()

    asyncio.run(cut())
    wait(lambda: firewall.calls("reload:after"))
    wait(lambda: not list(firewall.root.glob("cf/conf/mailserver-edge*")))
    assert not firewall.client().call("apply", "haproxy", wanted)["changed"]


def test_nothing_secret_is_on_a_command_line_or_in_a_log(firewall, wanted, edge_site):
    firewall.client().call("apply", "haproxy", wanted)
    firewall.client().call("apply", "rules", rule_set(edge_site()))
    assert set((firewall.root / "log/commands").read_text().splitlines()) == {COMMAND}
    body = "".join(firewall.private_key.splitlines()[1:-1])
    for file in (file for folder in ("cf", "log", "tmp", "var/etc", "var/run") for file in (firewall.root / folder).rglob("*")):
        if file.is_file():
            text = file.read_bytes().decode("latin-1").replace("\n", "")
            assert body[100:140] not in text, file


def test_a_foreign_password_in_the_configuration_never_leaves_the_firewall(firewall, wanted, edge_site):
    answers = [firewall.client().call(verb, "haproxy", wanted) for verb in ("read", "plan", "apply", "health")]
    answers += [firewall.client().call("plan", "rules", rule_set(edge_site()))]
    assert "foreign-password" in firewall.config_file.read_text()
    assert "foreign-password" not in str(answers)


def test_an_answer_that_says_no_is_one_sentence_with_its_step(firewall, wanted):
    (firewall.root / "var/run/haproxy.conf.dirty").touch()
    with pytest.raises(AgentError) as error:
        firewall.client().call("apply", "haproxy", wanted)
    assert str(error.value).endswith("[step unapplied]")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("change", "code"), [("verb", 2), ("wanted", 2)])
def test_the_exit_code_tells_the_step(firewall, wanted, change, code):
    program = firewall.program("nothing" if change == "verb" else "read", "haproxy", {} if change == "wanted" else wanted)
    assert firewall.feed(program) == code
    (firewall.root / "var/run/haproxy.conf.dirty").touch()
    assert firewall.feed(firewall.program("apply", "haproxy", wanted)) == 12


def test_calls_to_one_firewall_take_turns(firewall, wanted):
    """Two threads, one firewall: the second connects when the first is done."""
    firewall.fault("read|usleep(800000);")
    threads = [threading.Thread(target=firewall.client().call, args=("read", "haproxy", wanted)) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait(lambda: firewall.calls("read"))
    assert firewall.logins() == 1
    for thread in threads:
        thread.join()
    assert firewall.logins() == 2
