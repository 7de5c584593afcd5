"""A client elsewhere: connections that an SSH host opens, which needs nothing installed there."""

import asyncio
import errno
import os
import socket
import threading
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path

import asyncssh
from asyncssh.constants import OPEN_ADMINISTRATIVELY_PROHIBITED

from components.edge.ssh import key_algorithms
from components.settings.doctor import Vantage
from tools.doctor.check import BlindError
from tools.doctor.patient import UnreachedError

SECONDS = 15  # to log in there
CHUNK = 65536


class Outpost:
    """One SSH session, opened at the first connection and kept; as `Patient.connect`."""

    def __init__(self, vantage: Vantage) -> None:
        self._vantage = vantage
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: asyncssh.SSHClientConnection | None = None
        self._pumps: set[asyncio.Task[None]] = set()

    def connect(self, address: str, port: int, seconds: float) -> socket.socket:
        """Raises UnreachedError where the host cannot connect, BlindError where it cannot be asked to."""
        loop = self._opened()
        ours, theirs = socket.socketpair()
        try:
            asyncio.run_coroutine_threadsafe(self._open(address, port, theirs), loop).result(seconds)
        except asyncssh.ChannelOpenError as error:
            ours.close()
            if error.code == OPEN_ADMINISTRATIVELY_PROHIBITED:
                raise BlindError(f"doctor.vantage: {self._vantage.host} forwards no connections (AllowTcpForwarding in its sshd)") from None
            no_route = "unreachable" in error.reason.lower()
            raise UnreachedError(errno.ENETUNREACH if no_route else errno.ECONNREFUSED, error.reason) from None
        except FutureTimeoutError:
            ours.close()
            raise UnreachedError(errno.ETIMEDOUT, f"no connection within {seconds:g} s") from None
        ours.settimeout(seconds)
        return ours

    def _opened(self) -> asyncio.AbstractEventLoop:
        """The loop of the session's own thread, with the session. The first caller logs in, the others wait for it."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, daemon=True).start()
            if self._session is None:
                where = f"doctor.vantage: {self._vantage.user}@{self._vantage.host}:{self._vantage.port}"
                try:
                    self._session = asyncio.run_coroutine_threadsafe(self._log_in(), self._loop).result(SECONDS)
                except (FutureTimeoutError, TimeoutError):
                    raise BlindError(f"{where}: no log-in within {SECONDS} s") from None
                except asyncssh.HostKeyNotVerifiable:
                    raise BlindError(f"{where}: shows another host key than doctor.vantage.host_key") from None
                except asyncssh.PermissionDenied:
                    raise BlindError(f"{where}: refuses the key") from None
                except asyncssh.Error as error:
                    raise BlindError(f"{where}: {error.reason if isinstance(error, asyncssh.DisconnectError) else error}") from None
                except OSError as error:
                    raise BlindError(f"{where}: {os.strerror(error.errno) if error.errno else error}") from None
            return self._loop

    async def _log_in(self) -> asyncssh.SSHClientConnection:
        vantage = self._vantage
        trusted = asyncssh.import_public_key(vantage.host_key)
        if vantage.key_file is None and not os.environ.get("SSH_AUTH_SOCK"):
            raise BlindError("doctor.vantage: no key: name doctor.vantage.key_file, or start an SSH agent")
        keys = None if vantage.key_file is None else [str(Path(vantage.key_file).expanduser())]
        return await asyncssh.connect(
            vantage.host,
            vantage.port,
            username=vantage.user,
            config=None,  # ~/.ssh/config must not change how this host is reached
            known_hosts=([trusted], [], []),
            server_host_key_algs=key_algorithms(trusted),
            preferred_auth="publickey",
            **({"client_keys": keys, "agent_path": None} if keys else {"client_keys": ()}),
        )

    async def _open(self, address: str, port: int, end: socket.socket) -> None:
        assert self._session is not None  # noqa: S101 - _opened
        try:
            far_reader, far_writer = await self._session.open_connection(address, port, encoding=None)
        except BaseException:
            end.close()
            raise
        reader, writer = await asyncio.open_connection(sock=end)
        for pump in (_pump(far_reader, writer), _pump(reader, far_writer)):
            task = asyncio.ensure_future(pump)
            self._pumps.add(task)  # the loop itself keeps no task alive
            task.add_done_callback(self._pumps.discard)


async def _pump(source: asyncio.StreamReader | asyncssh.SSHReader[bytes], target: asyncio.StreamWriter | asyncssh.SSHWriter[bytes]) -> None:
    """Pass on what comes, until either side ends."""
    try:
        while data := await source.read(CHUNK):
            target.write(data)
            await target.drain()
    except (OSError, asyncssh.Error):
        pass
    finally:
        target.close()
