"""The octets of POP3: command lines, replies, messages, surrogates and PROXY headers.

Nothing here awaits, logs or touches a socket. May import errors, settings, peer and maildrop.
"""

from pop3hub.protocol.framing import (
    COMMAND_LIMIT,
    REPLY_LIMIT,
    Framer,
    LineNeverEnds,
    err,
    ok,
    split_command,
    text_of,
)
from pop3hub.protocol.message import (
    END,
    Encoder,
    LineEnds,
    LoneCarriageReturns,
    MessageEncoder,
    WireForm,
    WireReadyEncoder,
    is_wire_ready,
    wire_form,
)

__all__ = [
    "COMMAND_LIMIT",
    "END",
    "REPLY_LIMIT",
    "Encoder",
    "Framer",
    "LineEnds",
    "LineNeverEnds",
    "LoneCarriageReturns",
    "MessageEncoder",
    "WireForm",
    "WireReadyEncoder",
    "err",
    "is_wire_ready",
    "ok",
    "split_command",
    "text_of",
    "wire_form",
]
