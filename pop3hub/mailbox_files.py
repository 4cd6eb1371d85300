"""Mail that lies in files: folders of .eml files, Maildirs and mboxes, read and never changed.

The memory backend serves from them and `pop3hub import` takes mail over from them. Formats are read
with the standard library's `mailbox`, but for Maildirs; what other servers noted about unique-ids
is read here, so that a client which moves with its mail downloads nothing twice.

Only plain files are opened: a FIFO would keep its reader waiting for ever. A path that was given
may be a symbolic link; one below it is refused, since the owner of the mail could point it at
files that only the operator may read.
"""
# ruff: noqa: PTH123, PTH208 - names relative to a folder's descriptor

from __future__ import annotations

import errno
import mailbox
import os
import re
import stat
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

CHUNK = 64 * 1024
"""Octets that `SourceMessage.chunks` reads at a time."""
HEADER_LIMIT = 64 * 1024
"""Octets at the start of a message in which an X-UIDL field is looked for."""
UIDLIST_LIMIT = 256 << 20
"""Octets of a `dovecot-uidlist`; a larger one isn't read."""
LOOKS = 50
"""How often a Maildir is listed while other programs go on renaming its files."""
ABSENT = 3
"""Looks in a row, a pause apart, after which a file is gone that another program may rename."""
PAUSE = 0.02
"""Seconds between two looks."""

_FROM = b"From "  # the line in front of each message of an mbox
_FROM_LIMIT = 4096
_UNIQUE_ID = re.compile(r"[!-~]{1,70}")  # RFC 1939 s7
_X_UIDL = re.compile(rb"^X-UIDL:[ \t]*([!-~]{1,70})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_HEADER_END = re.compile(rb"^\r?\n", re.MULTILINE)
_UIDLIST = "dovecot-uidlist"
_UIDLIST_LINE = re.compile(r"([0-9]{1,10}) (?:([A-Z].*?) )?:(.+)")
_DELIVERED = re.compile(r"([0-9]{1,12})\.(?:[^,]*?M([0-9]{1,6}))?")
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"Dovecot-LZ4": "LZ4",
    b"CRYPTED\x03\x07": "Dovecot's mail_crypt",
}


class _File(Protocol):
    """What `open` and `mailbox` return have in common."""

    def read(self, size: int, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int | None: ...
    def tell(self) -> int: ...


@dataclass(frozen=True, slots=True)
class SourceMessage:
    """A message in a file; it can be read until the next one is asked for.

    origin: the file, and the message's number where it holds several; for people.
    octets: as it lies in the file, for a progress bar.
    uid: the unique-id that another server gave it, or None.
    """

    origin: str
    octets: int
    uid: str | None
    _file: _File = field(repr=False)

    def chunks(self) -> Iterator[bytes]:
        """Yield the message's octets, line ends as they are; once."""
        while chunk := self._file.read(CHUNK):
            yield chunk

    def contents(self) -> bytes:
        """Return the message's octets, line ends as they are; once."""
        return b"".join(self.chunks())


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """What can't be taken, with the reason; `readable` is False where the system refused it."""

    origin: str
    reason: str
    readable: bool = True


def find_messages(path: Path, *, uidls: bool = False) -> Iterator[SourceMessage | SkippedFile]:
    """Yield the messages of a file or folder, oldest first, and what can't be taken.

    A folder is a Maildir, or holds .eml files, mboxes and Maildirs, in the order of their names.
    `uidls` looks for the unique-ids that Dovecot (`dovecot-uidlist`) or an X-UIDL field gave.
    """
    try:
        if is_maildir(path):
            yield from _maildir(path, uidls=uidls)
        elif path.is_dir():
            for entry in sorted(path.iterdir(), key=_natural):
                if not entry.name.startswith("."):
                    yield from _entry(entry, uidls=uidls)
        else:
            yield from _file(path, uidls=uidls, given=True)
    except OSError as exc:
        yield _unreadable(path, exc)


def octets(path: Path) -> int:
    """Return how many octets `find` has before it: what a progress bar counts up to."""
    if not path.is_dir():
        return path.stat().st_size if path.is_file() else 0
    total = 0
    for _, _, names, folder in os.fwalk(path):
        for name in names:
            with suppress(FileNotFoundError):  # renamed or removed by another program
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


def is_maildir(path: Path) -> bool:
    """Return whether a folder is a Maildir; links in place of `cur` and `new` don't make one."""
    return all(_is_folder(path / name) for name in ("cur", "new"))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _open_plain(name: str | Path, folder: int | None = None, *, given: bool = False) -> int:
    """Open a plain file to read it; raise OSError for all else, and for a link unless `given`."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    if not given:
        flags |= os.O_NOFOLLOW
    try:
        fd = os.open(name, flags, dir_fd=folder)
    except OSError as exc:
        if exc.errno in {errno.ELOOP, errno.ENXIO}:  # a link; a socket
            raise OSError(errno.EINVAL, "not a plain file") from exc
        raise
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "not a plain file")


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return a sort key by which 2.eml stands before 10.eml."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


def _unreadable(path: Path | str, exc: OSError) -> SkippedFile:
    return SkippedFile(str(path), exc.strerror or str(exc), readable=exc.errno == errno.EINVAL)


def _entry(path: Path, *, uidls: bool) -> Iterator[SourceMessage | SkippedFile]:
    try:
        if path.is_symlink():
            yield SkippedFile(str(path), "a symbolic link")
        elif is_maildir(path):
            yield from _maildir(path, uidls=uidls)
        elif path.is_file():
            yield from _file(path, uidls=uidls, wanted=path.suffix == ".eml")
        else:
            yield SkippedFile(str(path), "neither a .eml file nor an mbox nor a Maildir")
    except OSError as exc:  # the entries after it are still to be had
        yield _unreadable(path, exc)


def _file(
    path: Path, *, uidls: bool, wanted: bool = True, given: bool = False
) -> Iterator[SourceMessage | SkippedFile]:
    """Yield from an mbox or a single message; only from an mbox unless a message is `wanted`."""
    origin = str(path)
    with open(_open_plain(path, given=given), "rb") as file:
        is_mbox = file.read(len(_FROM)) == _FROM and path.suffix != ".eml"
        if is_mbox:
            yield from _mbox(file, origin, uidls=uidls)
        elif wanted:
            yield _message(origin, file, uidls=uidls)
        else:
            yield SkippedFile(origin, "neither a .eml file nor an mbox nor a Maildir")


def _mbox(file: BinaryIO, origin: str, *, uidls: bool) -> Iterator[SourceMessage | SkippedFile]:
    # By its descriptor: at its path something else may be by now. mailbox wants the file writable
    # if it can be; it writes nothing that isn't asked for.
    box = mailbox.mbox(f"/dev/fd/{file.fileno()}", create=False)
    try:
        for number, key in enumerate(box.iterkeys(), 1):
            yield _message(f"{origin}, message {number}", box.get_file(key), uidls=uidls)
    finally:
        box.close()


def _message(
    origin: str, file: _File, *, uidls: bool, uid: str | None = None
) -> SourceMessage | SkippedFile:
    """Return the message that lies between the file's position and its end."""
    size = file.seek(0, 2) or file.tell()  # mailbox's files return None
    file.seek(0)
    head = file.read(HEADER_LIMIT if uidls else _FROM_LIMIT)
    for magic, packer in _PACKED.items():
        if head.startswith(magic):
            return SkippedFile(origin, f"packed or encrypted ({packer}): unpack it first")
    start = 0
    if head.startswith(_FROM):
        start = head.find(b"\n", 0, _FROM_LIMIT) + 1
    if uidls and uid is None:
        uid = _x_uidl(head[start:])
    file.seek(start)
    return SourceMessage(origin, size - start, uid, file)


def _x_uidl(head: bytes) -> str | None:
    end = _HEADER_END.search(head)
    match = _X_UIDL.search(head[: end.start()] if end else head)
    return match[1].decode("ascii") if match else None


# Maildirs


def _maildir(path: Path, *, uidls: bool) -> Iterator[SourceMessage | SkippedFile]:
    with ExitStack() as stack:
        top = _open_folder(path, None, stack)
        folders = {name: _open_folder(name, top, stack) for name in ("new", "cur")}
        known = dovecot_uidls(top) if uidls else {}
        places = _places(folders)
        order = {base: number for number, base in enumerate(known)}
        for base in sorted(places, key=lambda base: (order.get(base, len(order)), delivered(base))):
            origin = str(path / base)
            try:
                fd = _open_moving(base, places, folders)
            except OSError as exc:
                yield _unreadable(origin, exc)
                continue
            if fd is not None:
                with open(fd, "rb") as file:
                    yield _message(origin, file, uidls=uidls, uid=known.get(base))
    for folder in sorted(path.glob(".*")):
        if is_maildir(folder):
            yield SkippedFile(str(folder), "a folder below the inbox: POP3 has one maildrop")


def _open_folder(name: str | Path, above: int | None, stack: ExitStack) -> int:
    """Open a folder, which below another one must not be a link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    fd = os.open(name, flags if above is None else flags | os.O_NOFOLLOW, dir_fd=above)
    stack.callback(os.close, fd)
    return fd


def _places(folders: dict[str, int]) -> dict[str, tuple[str, str]]:
    """Return folder and name of each file by its base name.

    A listing can miss a file that another program renames meanwhile, so it is repeated until
    nothing has changed during one.
    """
    places: dict[str, tuple[str, str]] = {}
    for _ in range(LOOKS):
        before = _times(folders)
        places |= _listed(folders)
        if before == _times(folders):
            break
    return places


def _listed(folders: dict[str, int]) -> dict[str, tuple[str, str]]:
    return {
        name.partition(":")[0]: (folder, name)
        for folder, fd in folders.items()
        for name in os.listdir(fd)
        if not name.startswith(".")
    }


def _times(folders: dict[str, int]) -> list[int]:
    return [os.fstat(fd).st_mtime_ns for fd in folders.values()]


def _open_moving(
    base: str, places: dict[str, tuple[str, str]], folders: dict[str, int]
) -> int | None:
    """Open a message's file, wherever another program renames it; None once it is gone."""
    absent = 0
    for _ in range(LOOKS):
        folder, name = places[base]
        try:
            return _open_plain(name, folders[folder])
        except FileNotFoundError:
            found = _listed(folders)
            absent = 0 if base in found else absent + 1
            if absent == ABSENT:
                return None
            if absent:
                time.sleep(PAUSE)
            places |= found
    raise OSError(errno.EAGAIN, "renamed again and again")


def delivered(base: str) -> tuple[int, int, str]:
    """Return a sort key by the time of delivery that stands in a Maildir file's base name."""
    match = _DELIVERED.match(base)
    if match is None:
        return (0, 0, base)
    return (int(match[1]), int(match[2] or 0), base)


def dovecot_uidls(maildir: int) -> dict[str, str]:
    """Return the unique-ids that Dovecot's POP3 shows, by base name, in Dovecot's order.

    `maildir` is a descriptor of the Maildir's folder. Read from `dovecot-uidlist`, version 3. A
    message is shown as `uid` and `uidvalidity`, eight lower-case hexadecimal digits each (Dovecot's
    default `pop3_uidl_format`), unless the list has one of its own for it (`P`, of a migration;
    empty: the base name); `O` puts it first. Nothing raises: lines that can't be read, and ids that
    POP3 doesn't allow, are ignored.
    """
    try:
        fd = _open_plain(_UIDLIST, folder=maildir)
    except OSError:
        return {}
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        if os.fstat(fd).st_size > UIDLIST_LIMIT:
            return {}
        text = file.read()
    header, _, body = text.partition("\n")
    validity = next((f[1:] for f in header.split()[1:] if re.fullmatch("V[0-9]{1,10}", f)), None)
    if not header.startswith("3 ") or validity is None:
        return {}
    shown: dict[str, tuple[tuple[bool, int, int], str]] = {}
    for line in body.split("\n"):
        match = _UIDLIST_LINE.fullmatch(line)
        if match is None:
            continue
        uid = int(match[1])
        base = match[3].partition(":")[0]
        fields = {word[0]: word[1:] for word in (match[2] or "").split(" ") if word}
        uidl = fields.get("P", f"{uid:08x}{int(validity):08x}") or base
        place = fields.get("O", "")
        first = place.isdecimal() and place.isascii()
        if _UNIQUE_ID.fullmatch(uidl):
            shown[base] = ((not first, int(place) if first else 0, uid), uidl)
    return {base: uidl for base, (_, uidl) in sorted(shown.items(), key=lambda item: item[1][0])}
