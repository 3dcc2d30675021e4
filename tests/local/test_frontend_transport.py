"""The transport of one client connection in the local DSQL, whichever side ends it."""

import asyncio
import socket
import ssl
import threading

import pytest

from dsql_local.frontend.tls import CertificateAuthority
from dsql_local.frontend.transport import Transport


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_a_connection_that_the_client_has_ended_can_be_cut(how):
    """asyncio has dropped its socket by then: a restart of the server must not fail on it."""
    authority = CertificateAuthority("localhost")
    accepted, client = socket.socketpair()
    accepted.setblocking(False)
    trusting = ssl.create_default_context(cadata=authority.pem)
    trusting.set_alpn_protocols(["postgresql"])

    def connect_and_leave() -> None:
        trusting.wrap_socket(client, server_hostname="localhost").close()

    async def serve() -> bool:
        transport = Transport(accepted)
        await transport.negotiate(authority)
        await transport.wait_for_end()
        transport.cut(how)
        return transport.is_disconnected

    leaving = threading.Thread(target=connect_and_leave)
    leaving.start()
    try:
        assert asyncio.run(serve())
    finally:
        leaving.join()
        accepted.close()
