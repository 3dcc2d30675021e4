"""The protocol's messages as values."""

import struct

import pytest

from dsql_local.protocol.decoder import MessageDecoder
from dsql_local.protocol.messages import (
    SSL_REQUEST,
    SYNC,
    Message,
    MessageBatch,
    ProtocolError,
    bind,
    data_row,
    error,
    error_fields,
    execute,
    joined,
    parse,
    parse_startup,
    query,
    ready,
    startup,
)

SENT = [query("SELECT 1"), parse("s", "SELECT $1"), bind("p", "s"), execute("p"), SYNC, ready(b"T"), Message(b"d", b"\0" * 9)]


@pytest.mark.parametrize("size", [1, 2, 7, 10_000], ids=lambda size: f"{size} at a time")
def test_bytes_become_messages_however_they_arrive(size):
    """The same messages come out whole, byte by byte and in pieces that do not fit."""
    data, splitter = joined(SENT), MessageDecoder()
    found = [message for at in range(0, len(data), size) for message in splitter.feed(data[at : at + size])]
    assert found == SENT


@pytest.mark.parametrize("size", [1, 7, 30, 10_000], ids=lambda size: f"{size} at a time")
def test_rows_come_in_runs(size):
    """Rows that follow each other in what has come are one run, which holds each of them; all else comes as it is."""
    rows = [Message(b"D", b"\0\1\0\0\0\1" + value) for value in (b"a", b"b", b"c")]
    sent = [Message(b"T", b"\0\0"), *rows, Message(b"C", b"SELECT 3\0"), Message(b"d", b"x"), *rows[:1]]
    data, splitter = joined(sent), MessageDecoder()
    found = [piece for at in range(0, len(data), size) for piece in splitter.feed_batched(data[at : at + size])]
    assert joined(found) == data
    assert [message for piece in found for message in (piece.messages if isinstance(piece, MessageBatch) else [piece])] == sent
    if size > len(data):
        assert [piece.kind for piece in found] == [b"T", b"D", b"C", b"d", b"D"]


def test_what_is_incomplete_waits():
    """Trailing bytes of a message that is not complete stay for the next ones."""
    splitter, data = MessageDecoder(), query("SELECT 1").data
    assert list(splitter.feed(SYNC.data + data[:-1])) == [SYNC]
    assert list(splitter.feed(data[-1:])) == [query("SELECT 1")]


@pytest.mark.parametrize("length", [3, 0, -1, (1 << 30) + 1])
def test_an_impossible_length_is_an_error(length):
    """A length that no message can have ends the conversation instead of waiting for ever."""
    with pytest.raises(ProtocolError):
        list(MessageDecoder().feed(b"Q" + struct.pack("!i", length)))


def test_a_startup_packet_carries_parameters():
    """A startup packet comes back as it was made."""
    packet = parse_startup(startup({"user": "admin", "options": "-c x=y"})[4:])
    assert packet.parameters == {"user": "admin", "options": "-c x=y"}


def test_a_request_for_tls_is_told_by_its_code():
    """SSLRequest has a code in the version's place and no parameters."""
    assert parse_startup(struct.pack("!i", SSL_REQUEST)).code == SSL_REQUEST


@pytest.mark.parametrize("body", [b"", b"\0\0", struct.pack("!i", 2 << 16), b"\0\3\0\0" + b"x" * 10_000])
def test_a_wrong_startup_packet_is_an_error(body):
    """Too short, too long and another protocol version are refused."""
    with pytest.raises(ProtocolError):
        parse_startup(body)


def test_an_error_has_its_fields():
    """Severity, code, message and hint of an ErrorResponse come back by their letters."""
    fields = error_fields(error("40001", "lost", hint="again"))
    assert fields == {"S": "ERROR", "V": "ERROR", "C": "40001", "M": "lost", "H": "again"}


def test_a_row_has_values_and_nulls():
    """An empty value and NULL are different things."""
    body = struct.pack("!h", 3) + struct.pack("!i", 1) + b"a" + struct.pack("!i", 0) + struct.pack("!i", -1)
    assert data_row(Message(b"D", body)) == [b"a", b"", None]


def test_a_string_without_its_end_is_an_error():
    """A Parse whose texts do not end is no Parse."""
    with pytest.raises(ProtocolError):
        Message(b"P", b"name\0SELECT 1").texts(2)
