"""Feed parsers and encoders with octets that atheris finds: what `make fuzz` runs.

Each target of tests/support/fuzzing.py runs in a process of its own for its share of the time.
Inputs that reached something new go to tests/protocol/corpus if they are short, and what failed in
any case. It needs `pip install atheris`, which has no part in the tests.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import structlog

ROOT = Path(__file__).parent.parent
CORPUS = ROOT / "tests/protocol/corpus"
LONGEST = 4096
"""Octets of an input at most."""
SHORT = 200
MANY = 50
"""Inputs of a target that are kept, and octets of each, at most."""
NAMES = ("framer", "encoder", "downgrader", "proxy", "dialogue")


def fuzz(name: str, seconds: int, folder: str) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris  # noqa: PLC0415 - the parent needs none

    sys.path.insert(0, str(ROOT))
    with atheris.instrument_imports(include=["pop3hub"]):
        from tests.support.fuzzing import TARGETS  # noqa: PLC0415 - instrumented as it is imported

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-verbosity=0"]
    options += ["-print_final_stats=1", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *options, folder], TARGETS[name]())
    atheris.Fuzz()


def keep(name: str, folder: Path) -> None:
    """Add what failed, and the shortest of what was found, as far as there is room."""
    found = {path for path in folder.iterdir() if not (CORPUS / name / path.name).exists()}
    failed = {path for path in found if path.name.startswith(("crash-", "timeout-", "oom-"))}
    short = sorted(
        (path for path in found - failed if path.stat().st_size <= SHORT),
        key=lambda path: path.stat().st_size,
    )
    room = MANY - len(list((CORPUS / name).iterdir()))
    for path in (*failed, *short[: max(0, room)]):
        shutil.copy(path, CORPUS / name / path.name)


def main() -> int:
    """Fuzz one target after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="in all")
    parser.add_argument("--target", action="append", choices=NAMES)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    names = args.target or NAMES
    if args.folder:
        fuzz(names[0], args.seconds, args.folder)
    share = str(max(1, args.seconds // len(names)))
    failed = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            for path in (CORPUS / name).iterdir():
                shutil.copy(path, folder)
            print(f"{name}: {share} s", flush=True)
            words = [sys.executable, __file__, "--target", name, "--seconds", share]
            done = subprocess.run([*words, "--folder", folder], check=False)
            keep(name, Path(folder))
            if done.returncode:
                failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "nothing failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
