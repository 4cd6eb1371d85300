"""Canned answers: what asyncio on uvloop costs when nothing is checked and nothing is looked up.

The floor under every figure of a server that is written in Python; no POP3 server at all. The
replies are those that pop3hub gives for the same mail.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl

import uvloop
from mail import KIB, MIB, Scale, message

END = b".\r\n"


class Canned(asyncio.Protocol):
    """Looks at the first octets of a line, and sends what stands for them."""

    small: bytes
    large: bytes
    uidl: dict[bool, bytes]
    list: bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self.transport = transport
        self.is_large = self.is_many = False
        transport.write(b"+OK POP3 server ready\r\n")  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Answer every line in one write."""
        replies = []
        for line in data.split(b"\n")[:-1]:
            verb = line[:4]
            if verb == b"RETR":
                replies.append(self.large if self.is_large else self.small)
            elif verb == b"UIDL":
                replies.append(self.uidl[self.is_many])
            elif verb == b"LIST":
                replies.append(self.list)
            elif verb == b"STAT":
                replies.append(b"+OK 10 40960\r\n")
            else:
                if verb == b"USER":
                    self.is_large = line[5:].startswith(b"re")
                    self.is_many = line[5:].startswith(b"many")
                replies.append(b"+OK\r\n")
        self.transport.write(b"".join(replies))  # type: ignore[attr-defined]
        if verb == b"QUIT":
            self.transport.close()


def _prepare(scale: Scale) -> None:
    Canned.small = b"+OK 4096 octets\r\n" + message(0, 4 * KIB) + END
    Canned.large = b"+OK 1048576 octets\r\n" + message(0, MIB) + END
    name = "1700000000.M0P1.bench"
    Canned.uidl = {
        many: b"+OK\r\n" + "".join(f"{n} {name}\r\n" for n in range(count)).encode() + END
        for many, count in ((False, scale.polled), (True, scale.listed))
    }
    Canned.list = b"+OK\r\n" + "".join(f"{n} 200\r\n" for n in range(scale.listed)).encode() + END


async def _serve(args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(args.cert, args.key)
    await loop.create_server(Canned, "127.0.0.1", args.port, backlog=1024)
    await loop.create_server(Canned, "127.0.0.1", args.tls_port, backlog=1024, ssl=context)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


def main() -> None:
    """Answer until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int, help="port for clear text")
    parser.add_argument("tls_port", type=int, help="port for TLS")
    parser.add_argument("--cert", required=True, help="PEM file of the certificate")
    parser.add_argument("--key", required=True, help="PEM file of its key")
    parser.add_argument("--polled", type=int, default=10, help="lines of a short UIDL")
    parser.add_argument("--listed", type=int, default=20_000, help="lines of a long one")
    args = parser.parse_args()
    _prepare(Scale(polled=args.polled, listed=args.listed))
    uvloop.run(_serve(args))


if __name__ == "__main__":
    main()
