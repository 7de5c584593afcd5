"""One command on the firewall over SSH: a pinned host key, a private key that never leaves memory, bounded timeouts.

AsyncSSH takes the host key as an argument rather than a file, takes keys from text, a file or an agent, and each stage can be bounded
by a plain timeout. It has been maintained since 2013 and depends on little more than `cryptography`.
"""

import asyncio
import os
from pathlib import Path

import asyncssh

from components.edge.connection import Connection
from components.errors import UserError

CONNECT_SECONDS = 10
LOGIN_SECONDS = 15


class TransportError(UserError):
    """The firewall was not reached, or the connection broke; the text names host and reason and contains no secret."""


def exchange(connection: Connection, private_key: str | None, command: str, program: bytes, seconds: float) -> tuple[bytes, int | None]:
    """Run `command` with `program` on its standard input; its standard output and its exit code (None: the command did not end by itself).

    `private_key` is PEM or OpenSSH text; without one, the connection's key file or the SSH agent has it. Raises TransportError.
    """
    try:
        return asyncio.run(_exchange(connection, private_key, command, program, seconds))
    except asyncssh.HostKeyNotVerifiable:
        raise TransportError(
            f"{connection.label} shows another host key than edge.ssh.host_key; nothing was sent. If the firewall was "
            "reinstalled, compare the new key at its console first (docs/runbooks/edge.md)"
        ) from None
    except asyncssh.PermissionDenied:
        raise TransportError(f"{connection.label} refuses the key; is its public half under System > User Manager?") from None
    except asyncssh.KeyImportError:
        raise TransportError("the private key cannot be read: it must be unencrypted OpenSSH or PEM text") from None
    except TimeoutError:
        raise TransportError(f"{connection.label} did not answer within {seconds:g} seconds") from None
    except (OSError, asyncssh.Error) as error:
        raise TransportError(f"{connection.label}: {type(error).__name__}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, asyncssh.DisconnectError):
        return error.reason
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "the connection broke"


async def _exchange(
    connection: Connection, private_key: str | None, command: str, program: bytes, seconds: float
) -> tuple[bytes, int | None]:
    trusted = asyncssh.import_public_key(connection.host_key)
    async with asyncio.timeout(seconds):
        client = await asyncssh.connect(
            connection.host,
            connection.port,
            username=connection.user,
            config=None,  # ~/.ssh/config must not change how this host is reached
            known_hosts=([trusted], [], []),
            server_host_key_algs=key_algorithms(trusted),
            preferred_auth="publickey",
            connect_timeout=CONNECT_SECONDS,
            login_timeout=LOGIN_SECONDS,
            keepalive_interval=10,
            keepalive_count_max=3,
            **_identity(connection, private_key),
        )
        try:
            process = await client.create_process(command, encoding=None, stderr=asyncssh.DEVNULL)
            process.stdin.write(program)
            process.stdin.write_eof()
            output = await process.stdout.read()
            await process.wait_closed()
            return output, process.exit_status
        finally:
            client.abort()  # an orderly close would wait for a command that hangs


def key_algorithms(key: asyncssh.SSHKey) -> list[str]:
    """Those that a server with several keys has to be asked for, so that it shows this one."""
    kind = key.get_algorithm()
    return ["rsa-sha2-512", "rsa-sha2-256"] if kind == "ssh-rsa" else [kind]


def _identity(connection: Connection, private_key: str | None) -> dict[str, object]:
    if private_key is not None:
        return {"client_keys": [asyncssh.import_private_key(private_key)], "agent_path": None}
    if connection.key_file is not None:
        try:
            return {"client_keys": [asyncssh.read_private_key(Path(connection.key_file).expanduser())], "agent_path": None}
        except FileNotFoundError:
            raise TransportError(f"edge.ssh.key_file: {connection.key_file}: there is no such file") from None
    if not os.environ.get("SSH_AUTH_SOCK"):
        raise TransportError(
            "no key for the firewall: set it with `pulumi config set --secret edgeSshKey < key`, name edge.ssh.key_file, "
            "or start an SSH agent"
        )
    return {"client_keys": ()}
