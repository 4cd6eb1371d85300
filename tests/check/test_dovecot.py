"""The conformance checks against Dovecot: what they blame it for is its own."""

import contextlib
import os
import pwd
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from pop3hub.check import CHECKS, Target, run_checks

USER, PASSWORD = "luke", "tatooine"
DOVECOT = shutil.which("dovecot", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
POP3D = Path("/usr/lib/dovecot/pop3")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.clients,
    pytest.mark.skipif(
        DOVECOT is None or not POP3D.exists() or shutil.which("openssl") is None,
        reason="needs Dovecot with its POP3 server, and openssl",
    ),
]

MESSAGES = (
    b"Subject: dots\n\none\n.hidden\n.\n..two\nlast\n",
    b"Subject: two\nTo: a@example.com\n\n" + b"line\n" * 9,
    b"Subject: headers only\n\n",
    b"Subject: no final line end\n\nend",
    b"Subject: latin-1 \xe9\n\n8-bit \xe9\n",
)

CONFIGURATION = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
default_login_user = {login}
default_internal_user = {internal}
protocols = pop3
ssl = yes
ssl_cert = <{folder}/cert.pem
ssl_key = <{folder}/key.pem
mail_location = maildir:{folder}/mail
first_valid_uid = 1
first_valid_gid = 0
auth_mechanisms = plain login
disable_plaintext_auth = no
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {folder}/users
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}
}}
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    address = 127.0.0.1
    port = {pop3}
  }}
  inet_listener pop3s {{
    address = 127.0.0.1
    port = {pop3s}
    ssl = yes
  }}
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""


def configuration(folder, pop3, pop3s):
    """Dovecot reads mail as an ordinary user: nobody when the tests run as root."""
    me = pwd.getpwuid(os.getuid())
    owner = pwd.getpwnam("nobody") if me.pw_uid == 0 else me
    for path in (folder / "mail", *(folder / "mail").rglob("*")):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    return CONFIGURATION.format(
        folder=folder,
        login="dovenull" if me.pw_uid == 0 else me.pw_name,
        internal="dovecot" if me.pw_uid == 0 else me.pw_name,
        uid=owner.pw_uid,
        gid=owner.pw_gid,
        pop3=pop3,
        pop3s=pop3s,
    )


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [one.getsockname()[1] for one in sockets]


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as one:
        one.settimeout(5)
        return one.recv(3) == b"+OK"
    return False


@pytest.fixture
def dovecot(request):
    """Start Dovecot with a mailbox of hard messages; yields its folder and ports.

    An indirect parameter is more configuration.

    The folder is not pytest's: Dovecot's other users must get in, and its socket paths be short.
    """
    with tempfile.TemporaryDirectory(prefix="dovecot", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        for part in ("new", "cur", "tmp"):
            (folder / "mail" / part).mkdir(parents=True)
        for number, message in enumerate(MESSAGES, 1000):
            (folder / "mail" / "new" / f"{number}.M1P1.host").write_bytes(message)
        (folder / "users").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
        (folder / "users").chmod(0o644)
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
                *("ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-out", "cert.pem"),
                *("-keyout", "key.pem", "-subj", "/CN=test", "-addext"),
                "subjectAltName=IP:127.0.0.1",
            ],
            cwd=folder,
            check=True,
            capture_output=True,
        )
        ports = free_ports(2)
        more = getattr(request, "param", "")
        (folder / "dovecot.conf").write_text(configuration(folder, *ports) + more)
        server = subprocess.Popen([DOVECOT, "-F", "-c", folder / "dovecot.conf"])
        try:
            deadline = time.monotonic() + 20
            while not answers(ports[0]):
                assert server.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
            yield folder, *ports
        finally:
            server.terminate()
            server.wait(20)


# Each is Dovecot's own: USER without a name is answered by +OK; CAPA after the login lacks USER and
# SASL (RFC 2449 s5, RFC 5034 s3); it lists "CAPA", which is not registered; USER in the clear
# counts after STLS; and LIST leaves out the line end that RETR adds to a message without one.
OWN_FAULTS = {
    "user-argument": "FAIL",
    "capa-both-states": "FAIL",
    "capa-registered": "warn",
    "stls-forgets-user": "warn",
    "retr-size": "warn",
}


@pytest.mark.parametrize("security", ["plain", "stls", "tls"])
def test_dovecot_is_blamed_for_its_own_faults_only(dovecot, security):
    folder, pop3, pop3s = dovecot
    target = Target(
        host="127.0.0.1",
        port=pop3s if security == "tls" else pop3,
        security=security,
        context=ssl.create_default_context(cafile=folder / "cert.pem"),
        user=USER,
        password=PASSWORD,
    )
    before = sorted(path.read_bytes() for path in (folder / "mail").glob("[cn]*/*"))

    results = run_checks(target)

    found = {r.name: r.status for r in results if r.status in {"FAIL", "warn"}}
    own = OWN_FAULTS.items()
    assert {k: v for k, v in own if security != "tls" or k != "stls-forgets-user"} == found, results
    assert before == sorted(path.read_bytes() for path in (folder / "mail").glob("[cn]*/*"))


def test_dovecot_passes_all_scratch_checks_but_that_of_nul(dovecot):
    folder, pop3, _ = dovecot
    target = Target(
        host="127.0.0.1",
        port=pop3,
        security="stls",
        context=ssl.create_default_context(cafile=folder / "cert.pem"),
        user=USER,
        password=PASSWORD,
        scratch=True,
    )

    results = run_checks(target, only={check.name for check in CHECKS if check.scratch})

    found = {r.name: r.status for r in results if r.status != "ok"}
    assert {"nul": "FAIL"} == found, results  # it cuts a command at NUL: NOOP<NUL>x is NOOP
    assert len(MESSAGES) - 1 == len(list((folder / "mail").glob("[cn]*/*")))


@pytest.mark.parametrize("dovecot", ["pop3_lock_session = yes\n"], indirect=True)
def test_a_lock_that_dovecot_waits_for_is_waited_for(dovecot):
    """It answers the second login after some 10 s."""
    folder, pop3, _ = dovecot
    target = Target(
        host="127.0.0.1",
        port=pop3,
        security="stls",
        context=ssl.create_default_context(cafile=folder / "cert.pem"),
        user=USER,
        password=PASSWORD,
        timeout=3.0,
    )

    (result,) = run_checks(target, only={"second-session"})

    assert ("ok", "refused with [IN-USE]") == (result.status, result.note), result
    assert result.seconds > target.timeout
