"""The tables of `cases` cover what others recorded on a cluster: its errors, its features, and its courses of transactions."""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pgparse  # type: ignore[import-not-found]
from tests.local.cases import RECORDED, conflicts, datatypes, indexes, queries, settings, statements, tables, transactions
from tests.local.recordings import recordings

from dsql_local.rules.dialect import first_word, translate
from dsql_local.rules.parse_tree import nodes, strings

GOLDEN = recordings()
TABLES = (statements, tables, datatypes, indexes, settings, queries, transactions)


def features(sql: str) -> set[tuple[str, ...]]:
    """What a statement is made of: the kinds of its nodes, their choices (the kind of a join, say), functions and types."""
    own = translate(sql)
    try:
        tree = pgparse.parse(sql if own is None or own.plain is None else own.plain)
    except pgparse.PGQueryError:
        return set()
    found: set[tuple[str, ...]] = set()
    for kind, node in nodes(tree):
        found.add((kind,))
        found |= {(kind, name, str(value)) for name, value in node.items() if re.fullmatch(r"[A-Z]+(_[A-Z0-9]+)+", str(value))}
        found |= {(kind, *strings(node[name])) for name in ("funcname", "names") if node.get(name)}
    return found


def is_error(answer: str) -> bool:
    """Whether an answer of the tables begins with a SQLSTATE."""
    return re.match(r"\d\w{4} ", answer) is not None


def own_cases() -> list[tuple[str, str]]:
    """(statement, answer) of the tables."""
    singles = [(case.sql, case.answer) for module in TABLES for case in module.CASES]
    scripts = [
        (step.sql, step.answers[-1]) for module in (transactions, conflicts) for script in module.SCRIPTS for step in script.steps
    ]
    return [*singles, *scripts]


def recorded_steps() -> list[dict[str, Any]]:
    return [step for case in GOLDEN["cases"] if case["comparable"] and not case.get("known_gap") for step in case["steps"]]


def recorded_errors() -> dict[str, re.Pattern[str]]:
    """SQLSTATE and message of each recorded error, and a pattern of them in which the objects may be called otherwise."""
    expected = [step["expect"] for case in GOLDEN["cases"] for step in case["steps"]]
    answers = {f"{each['sqlstate']} {each['message']}" for each in expected if each["outcome"] == "error"}
    return {answer: re.compile(re.sub(r"baseline\w*", r"\\w+", re.escape(answer))) for answer in answers}


def test_every_recorded_error_is_in_the_tables():
    """Each SQLSTATE and message is the answer to a statement of the tables, except those of the known gaps."""
    answers = {answer for _, answer in own_cases()}
    missing = {words for words, pattern in recorded_errors().items() if not any(map(pattern.fullmatch, answers))}
    assert {words[:5] for words in missing} == {"42804", "55000"}


def test_what_the_tables_call_recorded_was_recorded():
    """An error whose source is a recording is one of the recorded ones, with the names of objects changed."""
    patterns = [re.compile(re.sub(r'"\w+"', r'"\\w+"', pattern.pattern)) for pattern in recorded_errors().values()]
    errors = [case.answer for module in TABLES for case in module.CASES if case.source == RECORDED and is_error(case.answer)]
    assert [answer for answer in errors if not any(pattern.fullmatch(answer) for pattern in patterns)] == []


def test_every_recorded_feature_is_in_the_tables():
    """What the accepted statements are made of occurs in accepted statements of the tables, but for the recordings' own names."""
    accepted = [sql for sql, answer in own_cases() if not is_error(answer)]
    own = set().union(*map(features, accepted))
    recorded = set().union(*(features(step["sql"]) for step in recorded_steps() if step["expect"]["outcome"] == "ok"))
    assert {feature for feature in recorded - own if not any("baseline" in word for word in feature)} == set()


def courses(steps: Iterable[tuple[Any, str, list[str]]]) -> list[str]:
    """What each session does, step by step: the first words of the command tags, or of the statement and its SQLSTATE."""
    found: dict[Any, str] = defaultdict(str)
    for session, sql, answers in steps:
        failed = is_error(answers[-1])
        words = (
            [first_word(sql), answers[-1][:5]] if failed else [answer.split()[0].replace("START", "BEGIN") for answer in answers]
        )
        found[session] += " ".join(words) + "; "
    return list(found.values())


def recorded_courses(case: dict[str, Any]) -> list[str]:
    """The same of a recorded case."""
    return courses((step["session"], step["sql"], answers_of(step["expect"])) for step in case["steps"])


def answers_of(expect: dict[str, Any]) -> list[str]:
    """What the tables write for a recorded outcome."""
    if expect["outcome"] == "error":
        return [f"{expect['sqlstate']} {expect['message']}"]
    return [each["command_tag"] for each in expect.get("results") or [expect]]


def test_every_recorded_course_of_a_transaction_is_in_the_tables():
    """A recorded case of several steps is part of a script: each of its sessions of one session there."""
    scripts = [courses(script.steps) for module in (transactions, conflicts) for script in module.SCRIPTS]
    groups = {"transaction", "isolation", "multi_statement", "occ_conflict"}
    cases = [case for case in GOLDEN["cases"] if case["group"] in groups and case["comparable"] and not case.get("known_gap")]
    several = {case["name"]: recorded_courses(case) for case in cases if len(case["steps"]) > 1 or case["protocol"] == "simple"}
    assert len(several) > 20
    assert {
        name: course
        for name, course in several.items()
        if not any(all(any(part in whole for whole in script) for part in course) for script in scripts)
    } == {}


def test_no_statement_is_a_recorded_one():
    """The tables are this project's own; only the shortest texts that there are for a thing are the same."""
    recorded = {" ".join(step["sql"].split()).lower() for case in GOLDEN["cases"] for step in case["steps"]}
    assert {sql for sql, _ in own_cases() if " ".join(sql.split()).lower() in recorded} <= {"BEGIN", "COMMIT", "ROLLBACK"}
