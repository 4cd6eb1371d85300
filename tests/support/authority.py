"""A certificate authority of the tests' own, whose certificates real clients verify."""

import datetime as dt
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """A certificate authority of the tests' own, in PEM files."""

    def __init__(self, folder, name="authority"):
        self.folder = folder
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.cert = self._sign(name, self.key, x509.BasicConstraints(True, None))
        self.path = self._write("ca.pem", self.cert)

    def _sign(self, name, key, *extensions):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def _write(self, name, cert, key=None):
        path = self.folder / name
        octets = cert.public_bytes(serialization.Encoding.PEM)
        if key is not None:
            octets += key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        path.write_bytes(octets)
        return str(path)

    def issue(self, *names, file=None, mail=None):
        """Write a certificate with its key, for DNS names or a mail address; return the path."""
        key = ec.generate_private_key(ec.SECP256R1())
        general = [x509.RFC822Name(mail)] if mail else [x509.DNSName(name) for name in names]
        cert = self._sign(mail or names[0], key, x509.SubjectAlternativeName(general))
        return self._write(file or f"{(mail or names[0]).replace('*', '_')}.pem", cert, key)

    def client(self, cert=None):
        """Return a client's context that trusts this authority."""
        context = ssl.create_default_context(cafile=self.path)
        if cert:
            context.load_cert_chain(cert)
        return context
