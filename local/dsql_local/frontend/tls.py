"""The certificate of the endpoint, from a CA that exists only for this server, and what a client says in the handshake."""

import ssl
import weakref

import trustme

__all__ = ["CertificateAuthority"]


class CertificateAuthority:
    """A CA of its own, and the TLS context of one endpoint."""

    def __init__(self, endpoint: str) -> None:
        authority = trustme.CA(organization_name="dsql-local")
        certificate = authority.issue_cert(endpoint, common_name=None)
        self.pem: str = authority.cert_pem.bytes().decode()
        """The CA's certificate, for clients to trust."""
        self._names: weakref.WeakKeyDictionary[object, str] = weakref.WeakKeyDictionary()
        self.context = self._context(certificate)

    def server_name(self, connection: object) -> str | None:
        """The name that the client of this SSL object asked for."""
        return self._names.get(connection)

    def _context(self, certificate: trustme.LeafCert) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["postgresql"])
        context.sni_callback = self._remember
        certificate.configure_cert(context)
        return context

    def _remember(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _context: ssl.SSLContext) -> None:
        # A wrong name is not refused here: DSQL refuses it by a message that a person can read, after the handshake.
        if name is not None:
            self._names[connection] = name
