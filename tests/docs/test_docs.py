"""The documents say what is: made where they can be made, run where they show code."""

import ast
import poplib
import re
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pop3hub.hooks import specs

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("plugins/*/*.md")],
)


def page_id(path):
    return str(path.relative_to(ROOT))


def test_the_page_of_hooks_is_made_from_the_specifications():
    made = runpy.run_path(str(ROOT / "docs/generate_hooks.py"))["page"]()

    assert made == (ROOT / "docs/hooks.md").read_text("utf-8")


def test_every_hook_stands_on_it():
    hooks = [name for name, value in vars(specs).items() if hasattr(value, "pop3hub_spec")]
    page = (ROOT / "docs/hooks.md").read_text("utf-8")

    assert [] == [hook for hook in hooks if f"### {hook}\n" not in page]


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_links_between_pages_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", text)

    assert [] == [link for link in links if not (path.parent / link).exists()]


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_files_that_a_page_names_are_there(path):
    names = re.findall(
        r"`((?:docs|tests|examples|benchmarks|plugins|pop3hub|languages)/[\w./*-]+)`",
        path.read_text("utf-8"),
    )

    assert [] == [name for name in names if not list(ROOT.glob(name.rstrip("/")))]


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_python_in_a_page_compiles(path):
    for code in re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.DOTALL):
        if code.startswith(" "):
            continue  # a part of a file, which the page's own test looks for
        if not code.startswith(("async def", "def")) or "):" in code:  # not a bare signature
            compile(code, str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("name", ["embedded.py", "pytest_fixture.py"])
def test_the_examples_of_embedding_are_the_files_that_run(name):
    code = (ROOT / "examples" / name).read_text("utf-8")

    assert f"```python\n{code}```" in (ROOT / "docs/embedding.md").read_text("utf-8")


def test_the_embedded_server_serves(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (ROOT / "examples/embedded.py").read_text("utf-8").replace(":1110", f":{port}")
    program = tmp_path / "embedded.py"
    program.write_text(code, "utf-8")
    with subprocess.Popen(
        [sys.executable, "-u", program], stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            while "Try: curl" not in running.stdout.readline():
                assert running.poll() is None
            client = poplib.POP3("127.0.0.1", port, timeout=10)
            client.user("luke")
            client.pass_("hello")
            lines = client.retr(1)[1]
            client.quit()
        finally:
            running.terminate()

    assert [b"Subject: Test message", b"", b"Hello world!"] == lines


def test_the_fixture_example_passes():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "pytest_fixture.py"],
        cwd=ROOT / "examples",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 0 == done.returncode, done.stdout
