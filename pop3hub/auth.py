"""Users and the comparison of what they prove themselves with.

Secrets are compared in constant time and hashed off the event loop; neither a password, a digest
nor a token is ever logged or put into an exception's text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class PopUser:
    """A user as `get_user` returns one.

    name: the canonical name; lock, log and store go by it.
    password: the hash that `compare_password` is given, or None for a user without one.
    secret: the shared secret of APOP and CRAM-MD5, which need it in clear (RFC 1939 s7), or None.
    data: whatever the plugin wants to find again in `session.user.data`.
    scram: SCRAM keys by mechanism name, each `iterations:salt$StoredKey:ServerKey` in base64 (the
        authentication value of RFC 5803 behind its scheme); no password can be read from them.
    """

    name: str
    password: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    data: Any = None
    scram: Mapping[str, str] = field(default_factory=dict, repr=False)
