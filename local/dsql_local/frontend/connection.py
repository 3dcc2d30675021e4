"""One client connection from accept to close: handshake, then flights until one side ends it.

Bytes are the business of `transport`, opening that of `handshake`, statements that of the session.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import astuple
from typing import Any

from ..engine.flights import Flight, FlightAssembler, FlightTooLarge
from ..engine.session import Session
from ..events import Event
from ..faults.commands import InvalidFaultCommand
from ..faults.injector import ConnectionCut, FaultInjector, MutedClient, ObservedClient, TruncatedClient
from ..faults.kinds import Disconnection
from ..postgres.backend import BackendLost, CommandFailed
from ..protocol.messages import MessageTooLong, ProtocolError
from ..rules.error_responses import PLAINTEXT, ConnectionRefusal
from ..rules.rulebook import answer
from .context import ConnectionContext
from .handshake import ConnectionRefused, Handshake
from .transport import Disconnected, HandshakeFailed, Plaintext, Transport

__all__ = ["Connection"]

HANDSHAKE_SECONDS = 30.0
_PEER_CHECK_SECONDS = 0.05


class Connection:
    """One client connection; `number` counts the accepted connections from 1."""

    def __init__(self, context: ConnectionContext, transport: Transport, number: int) -> None:
        self._context = context
        self._transport = transport
        self._number = number
        self._flights = FlightAssembler(context.limits.flight)
        self._injector = FaultInjector(context.faults, context.run_command, self._record)
        self._handshake = Handshake(context, transport, self._injector, self._record)
        self._ended_by = "client"
        self._opened_at = context.identity.clock()
        self._age_timer: asyncio.TimerHandle | None = None
        self.is_closing = False

    async def serve(self) -> None:
        """Open, serve and close the connection. Nothing that a client does raises out of here."""
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                session = await self._handshake.run()
            if session is not None:
                await self._serve_flights(session)
        except ConnectionRefused as refused:
            self._refuse(refused.refusal)
        except MessageTooLong:
            self._refuse(ConnectionRefusal(*astuple(answer("message"))))
        except FlightTooLarge as too_large:
            self._refuse(ConnectionRefusal(*astuple(too_large.error)))
        except ConnectionCut as cut:
            await self._inject_cut(cut)
        except InvalidFaultCommand as invalid:
            self._refuse(ConnectionRefusal("42601", f"/* dsql: */ {invalid}"))
        except ProtocolError as violation:
            self._refuse(ConnectionRefusal("08P01", f"protocol violation: {violation}"))
        except Plaintext:
            self._record("refused", sqlstate=PLAINTEXT.sqlstate, reason=PLAINTEXT.message)
            await self._transport.refuse_plaintext(PLAINTEXT.answer)
        except HandshakeFailed as failed:
            self._record("tls_failed", reason=str(failed))
        except (BackendLost, CommandFailed) as failed:
            self._ended_by = f"backend: {failed}"
        except (Disconnected, TimeoutError):
            pass
        finally:
            self.is_closing = True
            await self._close()

    def cut(self, how: Disconnection, ended_by: str) -> None:
        """Cut the connection without an error message."""
        self._ended_by = ended_by
        self._transport.cut(how)

    async def _serve_flights(self, session: Session) -> None:
        clock, max_age = self._context.identity.clock, self._context.limits.connection_age
        self._age_timer = asyncio.get_running_loop().call_later(max_age, self.cut, "fin", "age")
        while True:
            message = await self._transport.receive()
            if clock() - self._opened_at > max_age:
                self.cut("fin", "age")
                raise Disconnected
            if message.kind == b"X":
                raise Disconnected
            flight = self._flights.feed(await self._injector.observe(message), more=self._transport.has_more)
            if flight is None:
                continue
            self._record("flight", messages=flight.messages, statements=flight.statements)
            await self._answer(flight, session)

    async def _answer(self, flight: Flight, session: Session) -> None:
        """Execute a flight and send its answers. A fault may delay them, or cut the connection before or within them."""
        summary = flight.summary(in_transaction=session.in_transaction)
        self._injector.choose_targets(summary)
        delay = self._injector.faults.take_delay_seconds()
        if delay:
            self._record("delayed", reason=f"{delay * 1000:g} ms")
            await asyncio.sleep(delay)
        cut = self._injector.faults.take_cut_for(summary)
        if cut is None:
            await self._run(flight, session, ObservedClient(self._transport, self._injector))
            await self._transport.drain()
            return
        applied = cut.at in ("mid-reply", "after-reply") or (cut.at == "after-commit-sent" and cut.applied)
        kinds = {"mid-reply": TruncatedClient, "after-reply": ObservedClient}
        client = kinds.get(cut.at, MutedClient)(self._transport, self._injector)
        if applied:
            await self._run(flight, session, client)
        if isinstance(client, TruncatedClient):
            client.send_half()
        await self._transport.flush()
        raise ConnectionCut(cut, applied=applied)

    async def _run(self, flight: Flight, session: Session, client: ObservedClient) -> None:
        """Execute a flight. If the client disconnects meanwhile, its backend is closed, which frees its locks."""
        with self._while_connected():
            await session.run(flight, client)

    @contextlib.contextmanager
    def _while_connected(self) -> Iterator[None]:
        """Check at intervals whether the client is still connected; if it is not, end the block with `Disconnected`."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        disconnected = False
        timer: asyncio.TimerHandle

        def check() -> None:
            nonlocal disconnected, timer
            disconnected = self._transport.is_disconnected
            if not disconnected:
                timer = loop.call_later(_PEER_CHECK_SECONDS, check)
            elif task is not None:
                task.cancel()

        timer = loop.call_later(_PEER_CHECK_SECONDS, check)
        try:
            yield
        except asyncio.CancelledError:
            if disconnected and task is not None and task.uncancel() == 0:
                raise Disconnected from None
            raise
        finally:
            timer.cancel()

    # --- Closing ---

    def _refuse(self, refusal: ConnectionRefusal) -> None:
        self._ended_by = "refused"
        self._record("refused", sqlstate=refusal.sqlstate, reason=refusal.hint or refusal.message)
        self._transport.write(refusal.answer.data)

    async def _inject_cut(self, injected: ConnectionCut) -> None:
        """Cut the connection on demand, after the open transaction was rolled back."""
        cut = injected.cut
        if self._handshake.session is not None:
            await self._handshake.session.close()
        self._record("cut", at=cut.at, how=cut.how, applied=injected.applied)
        if cut.how == "silence":
            await self._transport.wait_for_end()
        else:
            self.cut(cut.how, "fault")

    async def _close(self) -> None:
        if self._age_timer is not None:
            self._age_timer.cancel()
        if self._handshake.session is not None:
            await self._handshake.session.close()
        await self._transport.close()
        if self._handshake.has_slot:
            self._context.limiter.release()
        self._record("close", reason=self._ended_by)

    def _record(self, kind: Any, /, **fields: Any) -> None:
        self._context.log.add(Event(kind=kind, connection=self._number, **fields))
