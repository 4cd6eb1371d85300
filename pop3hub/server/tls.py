"""TLS contexts: versions, certificates by name, and their renewal without a restart (RFC 8314).

A context stays the same object for as long as its listener lives; `reload` changes what new
connections are shown.
"""

from __future__ import annotations

import ssl
import warnings
from typing import TYPE_CHECKING

from pop3hub.errors import ConfigurationError

if TYPE_CHECKING:
    from pop3hub.server.listeners import Listener


class Certificates:
    """The TLS context of one listener, made of its certificate files.

    `context` shows the first certificate, or another one whose names hold the name that the client
    asks for (SNI, RFC 6066 s3); an unknown name gets the first. Raises ConfigurationError for files
    that can't be used.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._by_name: dict[str, ssl.SSLContext] = {}
        self.context = self._new_context()
        if listener.client_ca:
            self.context.verify_mode = ssl.CERT_OPTIONAL
            try:
                self.context.load_verify_locations(cafile=listener.client_ca)
            except (OSError, ssl.SSLError) as exc:
                raise ConfigurationError(
                    f"client authorities {listener.client_ca}: {_reason(exc)}"
                ) from exc
        self.context.sni_callback = self._choose
        self._extra = [self._new_context() for _ in listener.certs[1:]]
        self.reload()

    def reload(self) -> None:
        """Read the files again, for new connections; what can't be used changes nothing.

        Raises ConfigurationError.
        """
        pairs = [
            (cert, self._listener.keys[index] if index < len(self._listener.keys) else None)
            for index, cert in enumerate(self._listener.certs)
        ]
        for cert, key in pairs:  # all of them, before the first one is changed
            _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), cert, key)
        by_name: dict[str, ssl.SSLContext] = {}
        for context, (cert, key) in zip([self.context, *self._extra], pairs, strict=True):
            _load(context, cert, key)
            for name in _names(cert) if len(pairs) > 1 else ():
                by_name.setdefault(name, context)
        self._by_name = by_name

    def _new_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["pop3"])
        if self._listener.profile == "legacy":
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            with warnings.catch_warnings():  # the operator has asked for it, in so many words
                warnings.simplefilter("ignore", DeprecationWarning)
                context.minimum_version = ssl.TLSVersion.TLSv1
        return context

    def _choose(
        self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext
    ) -> None:
        if name and self._by_name:
            lower = name.lower()
            wildcard = "*." + lower.partition(".")[2]
            chosen = self._by_name.get(lower) or self._by_name.get(wildcard)
            if chosen is not None:
                connection.context = chosen


def _load(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    def no_passphrase() -> str:
        raise ConfigurationError(f"key {key or cert} has a passphrase: give one without")

    try:
        context.load_cert_chain(cert, key, password=no_passphrase)
    except (OSError, ssl.SSLError) as exc:
        files = f"certificate {cert}" + (f" with key {key}" if key else "")
        raise ConfigurationError(f"{files}: {_reason(exc)}") from exc


def _reason(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLError):
        what = exc.reason or "NOT_PEM"
        return f"{what.lower().replace('_', ' ')}: is it PEM, and do certificate and key match?"
    return exc.strerror or str(exc)


def _names(cert: str) -> list[str]:
    # CPython has no public way to read a certificate from a file; this one is its own tests'.
    decoded = ssl._ssl._test_decode_cert(cert)  # type: ignore[attr-defined]  # noqa: SLF001
    names = [value for kind, value in decoded.get("subjectAltName", ()) if kind == "DNS"]
    if not names:
        subject = dict(pair for part in decoded.get("subject", ()) for pair in part)
        names = [subject["commonName"]] if "commonName" in subject else []
    return [name.lower() for name in names]
