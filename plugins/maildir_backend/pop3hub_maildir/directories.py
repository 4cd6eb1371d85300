"""A Maildir's folders and files, opened so that nothing leads out of them and nothing blocks.

Below the root, each component is opened relative to the one before it, and no symbolic link is
followed: a user with a shell could point one at another user's mail. Only plain files are opened:
opening a FIFO would wait for its other end. The root itself is the operator's, links included.

A process that runs as root may read everything, so there the owner counts too. From the first
folder on that isn't root's, all that is opened must have its owner. Root's own entries are fine,
since only root can put them there, but for a file with a second name: anyone may make that.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

FOLDERS = ("tmp", "new", "cur")

_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# To pass through a folder takes less than to read it, where the system tells the two apart.
_PASSAGE = getattr(os, "O_PATH", 0) | _FOLDER


class MaildirPath:
    """Where a user's Maildir is: the operator's root, and the components below it.

    Compared and printed as the whole path.
    """

    __slots__ = ("_components", "_root", "_text")

    def __init__(self, root: str, components: Sequence[str]) -> None:
        self._root = root
        self._components = components
        self._text = os.path.join(root, *components)  # noqa: PTH118 - text, for logs and as a key

    def __str__(self) -> str:
        return self._text

    def open(self, *, create: bool = False) -> tuple[int, int]:
        """Return a descriptor of the Maildir's folder, and who must own what is in it.

        `create` makes what is missing of it. Raises OSError.
        """
        fd = os.open(self._root, _PASSAGE & ~os.O_NOFOLLOW)
        last = len(self._components) - 1
        try:
            owner = os.fstat(fd).st_uid
            for number, name in enumerate(self._components):
                flags = _FOLDER if number == last else _PASSAGE
                below, owner = _open_folder(name, fd, owner, flags, create=create)
                os.close(fd)
                fd = below
        except BaseException:
            os.close(fd)
            raise
        return fd, owner

    def exists(self) -> bool:
        """Return whether the Maildir's folder is there."""
        try:
            os.close(self.open()[0])
        except FileNotFoundError:
            return False
        return True


class OpenMaildir:
    """A Maildir whose folders are open; used by `with`, or closed by `close`.

    top, cur: descriptors of the Maildir and of `cur`; that of `new` is opened when it is needed.
    owner: what must own the files in it, where the process runs as root; 0 for anybody.
    Each piece of work opens its own. A descriptor that another one closes meanwhile could be
    somebody else's folder by the time that it is used.
    """

    __slots__ = ("_new", "cur", "owner", "top")

    def __init__(self, path: MaildirPath, *, create: bool = False) -> None:
        self.top = self.cur = self._new = -1
        try:
            self.top, self.owner = path.open(create=create)
            try:
                self.cur = self._open("cur")
            except FileNotFoundError:
                if not create:
                    raise
                for name in FOLDERS:
                    os.close(self._open(name, create=True))
                self.cur = self._open("cur")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptors."""
        for fd in (self._new, self.cur, self.top):
            if fd >= 0:
                os.close(fd)
        self.top = self.cur = self._new = -1

    @property
    def new(self) -> int:
        """A descriptor of `new`, which is made if it isn't there."""
        if self._new < 0:
            self._new = self._open("new", create=True)
        return self._new

    def _open(self, name: str, *, create: bool = False) -> int:
        return _open_folder(name, self.top, self.owner, _FOLDER, create=create)[0]

    def times(self) -> tuple[int, int]:
        """Return when names in `cur` and `new` last changed, in nanoseconds."""
        new = os.stat("new", dir_fd=self.top, follow_symlinks=False)
        return os.fstat(self.cur).st_mtime_ns, new.st_mtime_ns

    def at(self, place: str) -> tuple[str, int]:
        """Return name and folder of a place, which is `cur/NAME` or `new/NAME`."""
        return place[4:], self.cur if place.startswith("cur") else self.new

    def open(self, place: str) -> int:
        """Open a message file to read it."""
        name, folder = self.at(place)
        return open_file(name, os.O_RDONLY, folder, self.owner)

    def open_at_top(self, name: str, flags: int) -> int:
        """Open a file of the Maildir's own folder."""
        return open_file(name, flags, self.top, self.owner)

    def open_temporary(self, name: str) -> tuple[int, int]:
        """Make a file in `tmp`; return its descriptor and the folder's."""
        tmp = self._open("tmp", create=True)
        try:
            return open_file(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, tmp, self.owner), tmp
        except BaseException:
            os.close(tmp)
            raise

    def remove(self, place: str) -> None:
        """Remove a message file."""
        name, folder = self.at(place)
        os.unlink(name, dir_fd=folder)


def open_file(name: str, flags: int, folder: int, owner: int) -> int:
    """Open a plain file, made with mode 0600 if the flags say so; raise OSError for anything else.

    What root makes belongs to the folder's owner, who can't use it otherwise.
    """
    fd = os.open(name, flags | _SAFE, 0o600, dir_fd=folder)
    try:
        status = os.fstat(fd)
        _check_plain(status, name)
        if flags & os.O_CREAT and status.st_size == 0:
            _give(fd, status, folder)
        else:
            _check_owner(status, owner, name)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_folder(
    name: str, above: int, owner: int, flags: int, *, create: bool = False
) -> tuple[int, int]:
    """Return a folder's descriptor, and the owner that what is in it must have."""
    try:
        fd = os.open(name, flags, dir_fd=above)
    except FileNotFoundError:
        if not create:
            raise
        fd = _make_folder(name, above, flags)
    except OSError as exc:
        if exc.errno in {errno.ENOTDIR, errno.ELOOP}:
            raise OSError(exc.errno, "a symbolic link, or not a folder", name) from exc
        raise
    try:
        status = os.fstat(fd)
        _check_owner(status, owner, name)
    except BaseException:
        os.close(fd)
        raise
    return fd, status.st_uid or owner


def _make_folder(name: str, above: int, flags: int) -> int:
    try:
        os.mkdir(name, 0o700, dir_fd=above)
    except FileExistsError:  # another process was faster
        return os.open(name, flags, dir_fd=above)
    fd = os.open(name, _FOLDER, dir_fd=above)
    try:
        _give(fd, os.fstat(fd), above)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_plain(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a plain file", name)


def _check_owner(status: os.stat_result, owner: int, name: str) -> None:
    if os.geteuid() != 0 or owner in {status.st_uid, 0}:
        return
    if status.st_uid != 0 or (stat.S_ISREG(status.st_mode) and status.st_nlink > 1):
        raise PermissionError(errno.EPERM, "the owner is another than the Maildir's", name)


def _give(fd: int, status: os.stat_result, folder: int) -> None:
    above = os.fstat(folder)
    if os.geteuid() == 0 and status.st_uid == 0 and above.st_uid != 0:
        os.fchown(fd, above.st_uid, above.st_gid)
