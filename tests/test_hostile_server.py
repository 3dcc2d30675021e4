"""A server that breaks the protocol, by seed: no hang, no foreign error, no token in any frame, no memory (`tests.hostile`)."""

import pytest
from tests.campaigns import figures_of
from tests.hostile import Conversation

from dsql_lambda import InterfaceError, ProtocolError

MORE_MEMORY_MIB = 64


def test_hostile_conversations():
    """5,000: lengths, types, bodies, floods, cuts, stray and missing messages, while connecting and in a transaction."""
    found = figures_of("tests.hostile --count 2500 --seed 1", "tests.hostile --count 2500 --seed 2")
    assert sum(each["conversations"] for each in found) == 5000
    assert max(each["more_memory_mib"] for each in found) <= MORE_MEMORY_MIB
    for each in found:  # it was met, and survived: not only refused at the door
        assert {"no TLS", "ConnectError", "TransactionError", "CommitOutcomeUnknown", "value"} <= each["endings"].keys()


@pytest.mark.parametrize("number", range(50))
def test_a_conversation_follows_from_its_number(number):
    """So that one that went wrong can be held again."""
    one, other = Conversation(number), Conversation(number)
    assert (one.how, one.at, one.work, one.end) == (other.how, other.at, other.work, other.end)


def test_a_protocol_error_is_an_interface_error():
    """By pg8000's names: PEP 249's error for what is not about the data."""
    assert issubclass(ProtocolError, InterfaceError)
