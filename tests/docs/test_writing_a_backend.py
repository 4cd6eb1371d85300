"""The page shows what the example has, and the example does what the page says."""

import os
import poplib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.program import Process

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "sqlite_backend"
PAGE = (ROOT / "docs" / "writing-a-backend.md").read_text("utf-8")
SHOWN = re.findall(r"```(?:python|toml)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(SHOWN)))
def test_what_the_page_shows_is_in_the_example(number):
    files = [path for path in EXAMPLE.rglob("*") if path.suffix in {".py", ".toml"}]

    assert any(SHOWN[number] in path.read_text("utf-8") for path in files)


def test_the_example_passes_its_own_suite():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLE],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(EXAMPLE)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert 0 == done.returncode, done.stdout[-2000:]
    assert "skipped" not in done.stdout.replace("2 skipped", "")  # remove_user and list_users


@pytest.mark.slow
def test_it_is_installed_filled_and_served_by_two_workers(tmp_path):
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", site, EXAMPLE], check=True, timeout=120)
    environment = os.environ | {"PYTHONPATH": str(site)}
    store = ["--backend", "sqlite", "--sqlite-path", str(tmp_path / "mail.db")]

    def pop3hub(*words, stdin):
        subprocess.run(
            [sys.executable, "-m", "pop3hub", *store, *words],
            input=stdin,
            env=environment,
            check=True,
            timeout=60,
        )

    pop3hub("user", "add", "luke", stdin=b"hello\n")
    pop3hub("deliver", "luke", stdin=b"Subject: hi\n\nhello\n")
    with Process(*store, "--workers", "2", env=environment) as service:
        host, port = service.serve()
        client = poplib.POP3(host, port, timeout=20)
        client.user("luke")
        client.pass_("hello")
        assert [b"Subject: hi", b"", b"hello"] == client.retr(1)[1]
        client.dele(1)
        assert client.quit().startswith(b"+OK")
