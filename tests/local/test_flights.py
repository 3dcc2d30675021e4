"""Messages as flights, flights as units."""

from dsql_local.engine.flights import Flight, FlightAssembler, Unit
from dsql_local.protocol.messages import SYNC, Message, bind, close_statement, execute, parse, query
from dsql_local.rules.statements import Kind

FLUSH = Message(b"H")

DESCRIBE = Message(b"D", b"P\0")


def fly(*messages: Message) -> list[Flight]:
    flights = FlightAssembler()
    return [flight for message in messages if (flight := flights.feed(message)) is not None]


def step(sql: str) -> tuple[Message, ...]:
    return parse("", sql), bind("", ""), DESCRIBE, execute("")


def texts(units: object) -> list[tuple[str, ...]]:
    return [unit.statements for unit in units]  # type: ignore[attr-defined]


def test_a_flight_ends_at_its_sync():
    """Many statements under one Sync are one flight, with all their texts and all its messages' names."""
    (flight,) = fly(*step("BEGIN"), *step("UPDATE a SET b = 1"), *step("COMMIT"), SYNC)
    assert flight.statements == ("BEGIN", "UPDATE a SET b = 1", "COMMIT")
    assert flight.messages == ("Parse", "Bind", "Describe", "Execute") * 3 + ("Sync",)


def test_a_simple_query_is_a_flight():
    """A simple Query is a flight with each of its statements."""
    (flight,) = fly(query("BEGIN; SELECT 1"))
    assert (flight.messages, flight.statements) == (("Query",), ("BEGIN", "SELECT 1"))


def test_prepared_names_stand_for_their_text():
    """What was prepared in an earlier flight is known by name when it is executed."""
    prepared, executed = fly(parse("s", "COMMIT"), SYNC, bind("p", "s"), execute("p"), SYNC)
    assert prepared.statements == ()
    assert executed.statements == ("COMMIT",)
    assert [unit.kind for unit in executed.units(in_transaction=True)] == [Kind.COMMIT]


def test_outside_a_transaction_a_run_of_statements_is_one_unit():
    """PostgreSQL's implicit transaction stays whole; BEGIN, COMMIT and what is inside stand alone."""
    (flight,) = fly(query("INSERT 1; INSERT 2; BEGIN; INSERT 3; INSERT 4; COMMIT; INSERT 5; INSERT 6"))
    assert texts(flight.units(in_transaction=False)) == [
        ("INSERT 1", "INSERT 2"),
        ("BEGIN",),
        ("INSERT 3",),
        ("INSERT 4",),
        ("COMMIT",),
        ("INSERT 5", "INSERT 6"),
    ]


def test_inside_a_transaction_each_statement_is_a_unit():
    """Inside, every statement succeeds or fails by itself."""
    (flight,) = fly(*step("INSERT 1"), *step("INSERT 2"), SYNC)
    assert texts(flight.units(in_transaction=True)) == [("INSERT 1",), ("INSERT 2",)]
    assert texts(flight.units(in_transaction=False)) == [("INSERT 1", "INSERT 2")]


def test_messages_behind_the_last_execution_belong_to_it():
    """A Close behind an Execute is no unit of its own."""
    (flight,) = fly(*step("SELECT 1"), close_statement("x"), SYNC)
    (unit,) = flight.units(in_transaction=True)
    assert len(unit.messages) == 5


def test_a_flush_ends_a_flight_too():
    """A client that sends Flush waits, so it is a flight; the rest follows as another."""
    first, second = fly(parse("", "SELECT 1"), FLUSH, bind("", ""), execute(""), SYNC)
    assert (first.ending, first.statements, second.ending, second.statements) == ("flush", (), "sync", ("SELECT 1",))


def test_a_flush_with_a_sync_behind_it_ends_nothing():
    """A Flush that the client does not wait for is not a flight of its own."""
    flights = FlightAssembler()
    assert flights.feed(parse("", "SELECT 1")) is None
    assert flights.feed(FLUSH, more=True) is None
    flight = flights.feed(SYNC)
    assert flight is not None
    assert flight.messages == ("Parse", "Sync")


def test_executing_again_prepares_nothing_again():
    """A named statement outlives a rollback, so its Parse and Close are left out; the unnamed one is parsed anew."""
    unit = Unit((parse("s", "x"), parse("", "y"), bind("", "s"), execute(""), close_statement("s")), ("x",))
    assert unit.for_replay.messages == (parse("", "y"), bind("", "s"), execute(""))


def test_a_summary_says_what_faults_need():
    """BEGIN, COMMIT and other work in a flight are told apart."""
    (flight,) = fly(query("BEGIN; SELECT 1; COMMIT"))
    summary = flight.summary(in_transaction=False)
    assert (summary.in_transaction, summary.begins, summary.has_work, summary.commits) == (False, True, True, True)
