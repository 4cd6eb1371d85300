"""The servers that are measured: on loopback, with files of their own, ended by their pid."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import mail
import measure
import mongod

from pop3hub.hooks import discovery

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from load import Address

HERE = Path(__file__).parent
START = 60.0
"""Seconds that a server may take until it greets; the memory backend reads all mail first."""
STOP = 20.0
"""Seconds that a server may take to end before it is killed."""

# The high-performance mode of Dovecot's manual (LoginProcess), processes that are used again, and
# what its manual says makes POP3 over Maildirs faster. No limit may stand in the way of the load.
_DOVECOT = """
base_dir = {folder}/run
state_dir = {folder}/run
log_path = {folder}/log
protocols = pop3
listen = 127.0.0.1
ssl = yes
ssl_cert = <{cert}
ssl_key = <{key}
disable_plaintext_auth = no
default_vsz_limit = 0
default_client_limit = 20000
default_process_limit = 12000
mail_max_userip_connections = 0
first_valid_uid = 1
mail_location = maildir:{mail}/%u
maildir_very_dirty_syncs = yes
mail_privileged_group =
auth_mechanisms = plain
passdb {{
  driver = passwd-file
  args = {passwd}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={mail}/%u
}}
protocol pop3 {{
  pop3_no_flag_updates = yes
  pop3_fast_size_lookups = yes
}}
service pop3-login {{
  service_count = 0
  process_min_avail = 1
  process_limit = 1
  client_limit = 12000
  inet_listener pop3 {{
    port = {port}
  }}
  inet_listener pop3s {{
    port = {tls_port}
    ssl = yes
  }}
}}
service pop3 {{
  service_count = 10000
  process_min_avail = 4
  process_limit = 12000
}}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs: its process, and where it listens in clear and with TLS."""

    name: str
    pid: int
    plain: Address
    secure: Address

    def address(self, *, tls: bool) -> Address:
        """Return where to connect."""
        return self.secure if tls else self.plain


@dataclass(frozen=True, slots=True)
class Site:
    """A folder with mail, users and a certificate for every server."""

    root: Path
    maildirs: Path
    users: Path
    passwd: Path
    cert: Path
    key: Path
    scale: mail.Scale
    mongo: str = ""

    @classmethod
    @contextmanager
    def make(cls, scale: mail.Scale, names: Iterable[str]) -> Iterator[Site]:
        """Fill a temporary folder for these servers, and a database where one of them needs it."""
        with tempfile.TemporaryDirectory(prefix="pop3hub-") as folder, ExitStack() as stack:
            site = cls._written(Path(folder), scale)
            if "mongo" in names:
                started = mongod.running(site.root / "mongo", {measure.LOAD_CORE})
                site = replace(site, mongo=stack.enter_context(started))
                mongod.fill(site.mongo, scale)
            yield site

    @classmethod
    def _written(cls, root: Path, scale: mail.Scale) -> Site:
        """Write the files, as the property of a user whose mail Dovecot agrees to serve."""
        maildirs = root / "mail"
        mail.write_maildirs(maildirs, scale)
        users, passwd = mail.write_users(root, scale)
        cert, key = root / "cert.pem", root / "key.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=localhost", "-keyout", str(key), "-out", str(cert)),
            ],
            check=True,
            capture_output=True,
        )
        root.chmod(0o755)
        owner = _owner()
        if owner.pw_uid != os.geteuid():
            for path in (maildirs, *maildirs.rglob("*")):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        return cls(root, maildirs, users, passwd, cert, key, scale)


def available() -> list[str]:
    """Return the names of the servers that can be started on this machine."""
    installed = {entry.name for entry in discovery.installed("pop3hub.backends")}
    names: list[str] = [name for name in ("memory", "maildir") if name in installed]
    if "mongo" in installed and mongod.find():
        names.append("mongo")
    if shutil.which("dovecot", path=_sbin()):
        names.append("dovecot")
    return [*names, "floor"]


@contextmanager
def running(
    name: str, site: Site, *options: str, cores: Iterable[int] = (measure.SERVER_CORE,)
) -> Iterator[Server]:
    """Start a server by its name and wait until it greets; end it in the end.

    `options` are more of them for pop3hub's command line; `cores` the processors that it may use.
    """
    folder = site.root / f"{name}-{time.monotonic_ns()}"
    folder.mkdir()
    ports = _free_ports()
    starts = {"dovecot": _dovecot, "floor": _floor, "made-up": _made_up}
    command = [*starts.get(name, _pop3hub)(name, site, folder, ports), *options]
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),  # noqa: PLW1509 - no threads here
        )
    try:
        plain, secure = (("127.0.0.1", port) for port in ports)
        _await_greeting(process, plain, folder / "out")
        yield Server(name, process.pid, plain, secure)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def versions() -> dict[str, str]:
    """Return the versions of what is compared."""
    found = {name: version(name) for name in ("pop3hub", "uvloop")}
    if path := shutil.which("dovecot", path=_sbin()):
        said = subprocess.run([path, "--version"], check=True, capture_output=True, text=True)
        found["Dovecot"] = said.stdout.split()[0]
    return found


def _pop3hub(name: str, site: Site, folder: Path, ports: Sequence[int]) -> list[str]:  # noqa: ARG001
    own = {
        "memory": ["--memory-users", str(site.users), "--memory-mail", str(site.maildirs)],
        "maildir": ["--maildir", f"{site.maildirs}/{{user}}", "--maildir-passwd", str(site.passwd)],
        "mongo": ["--mongo-uri", site.mongo],
    }[name]
    return [
        *(sys.executable, "-m", "pop3hub", "--backend", name, *own),
        *("--listen", f"pop3://127.0.0.1:{ports[0]}"),
        *("--listen", f"pop3s://127.0.0.1:{ports[1]}"),
        *("--tls-cert", str(site.cert), "--tls-key", str(site.key)),
        *("--loop", "uvloop", "--log-format", "json"),
    ]


def _floor(name: str, site: Site, folder: Path, ports: Sequence[int]) -> list[str]:  # noqa: ARG001 - as the others
    scale = site.scale
    return [
        *(sys.executable, str(HERE / "floor.py"), *map(str, ports)),
        *("--cert", str(site.cert), "--key", str(site.key)),
        *("--polled", str(scale.polled), "--listed", str(scale.listed)),
    ]


def _made_up(name: str, site: Site, folder: Path, ports: Sequence[int]) -> list[str]:  # noqa: ARG001
    return [sys.executable, str(HERE / "serve.py"), str(ports[0])]


def _dovecot(name: str, site: Site, folder: Path, ports: Sequence[int]) -> list[str]:  # noqa: ARG001
    owner = _owner()
    text = _DOVECOT.format(
        folder=folder,
        cert=site.cert,
        key=site.key,
        mail=site.maildirs,
        passwd=site.passwd,
        uid=owner.pw_uid,
        gid=owner.pw_gid,
        port=ports[0],
        tls_port=ports[1],
    )
    if os.geteuid():
        me = pwd.getpwuid(os.geteuid()).pw_name
        text += f"default_login_user = {me}\ndefault_internal_user = {me}\n"
    config = folder / "dovecot.conf"
    config.write_text(text)
    path = shutil.which("dovecot", path=_sbin())
    assert path is not None, "Dovecot is not installed"
    return [path, "-F", "-c", str(config)]


def _owner() -> pwd.struct_passwd:
    """Return whose the mail is: ours, but for root, whose mail Dovecot refuses to serve."""
    return pwd.getpwnam("mail") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())


def _sbin() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"


def _free_ports() -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _await_greeting(process: subprocess.Popen[bytes], address: Address, out: Path) -> None:
    deadline = time.monotonic() + START
    while True:
        try:
            with socket.create_connection(address, START) as probe:
                if probe.recv(3) == b"+OK":
                    return
        except ConnectionRefusedError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not start: {out.read_text()}")
        time.sleep(0.05)
