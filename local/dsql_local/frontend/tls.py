"""TLS of one endpoint: its CA and certificate, and the server name (SNI) that each client asked for."""

import ssl
import weakref

import trustme

__all__ = ["CertificateAuthority"]


class CertificateAuthority:
    """A CA made for one server, and the TLS context of its endpoint."""

    def __init__(self, endpoint: str) -> None:
        authority = trustme.CA(organization_name="dsql-local")
        certificate = authority.issue_cert(endpoint, common_name=None)
        self.pem: str = authority.cert_pem.bytes().decode()
        """The CA's certificate, which clients must trust."""
        self._names: weakref.WeakKeyDictionary[object, str] = weakref.WeakKeyDictionary()
        self.context = self._context(certificate)

    def server_name(self, connection: object) -> str | None:
        """The server name that the client of this SSL object asked for, None without SNI."""
        return self._names.get(connection)

    def _context(self, certificate: trustme.LeafCert) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["postgresql"])
        context.sni_callback = self._remember
        certificate.configure_cert(context)
        return context

    def _remember(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _context: ssl.SSLContext) -> None:
        # A wrong name is not refused here: DSQL completes the handshake and answers with an error message.
        if name is not None:
            self._names[connection] = name
