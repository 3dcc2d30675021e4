"""The ledger's page in headless Chromium, through `sam local start-api`: what a person sees and does."""

import json
import os
import shutil
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dsql_local import LocalDsql
from dsql_local.sam import sam_cli

NAMES = ("chromium-headless-shell", "chromium", "google-chrome", "chromium-browser")
COLD_MS = 60_000  # a container that starts


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; without one the tests are skipped, or fail where REQUIRE_BROWSER=1 says they must not be."""
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        reason = f"no Chromium is on the PATH ({', '.join(NAMES)}); Debian: apt-get install chromium-headless-shell"
        pytest.fail(reason) if os.environ.get("REQUIRE_BROWSER") == "1" else pytest.skip(reason)
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(docker: Any, project: Path, built: Path, running_cluster: LocalDsql) -> Iterator[str]:
    """Where `sam local start-api` serves the routes of all functions."""
    sam_cli.build(project)
    with sam_cli.start_api(project, running_cluster.environment) as address:
        yield address


@pytest.fixture
def page(browser: Any, address: str, cluster: LocalDsql) -> Iterator[Any]:
    """The page, when it is live; nothing in it may fail or be refused by its policy."""
    page = browser.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text) if "Content Security Policy" in message.text else None)
    page.goto(f"{address}/ledger", timeout=COLD_MS)
    page.wait_for_selector("#state[data-live=yes]", timeout=COLD_MS)
    yield page
    page.close()
    assert troubles == []


@pytest.fixture
def expect() -> Any:
    """Playwright's assertions, which wait."""
    return pytest.importorskip("playwright.sync_api").expect


def rows(page: Any, table: str) -> list[list[str]]:
    return [row.locator("td").all_inner_texts() for row in page.locator(f"#{table} tr").all()]


def fill(page: Any, source: str, target: str, amount: str) -> None:
    for name, value in (("source", source), ("target", target), ("amount", amount)):
        page.fill(f"[name={name}]", value)
    page.click("button")


def send(address: str, source: str, target: str, amount: int) -> None:
    """A transfer of somebody else's."""
    body = json.dumps({"source": source, "target": target, "amount": amount}).encode()
    asked = urllib.request.Request(f"{address}/ledger/transfers", body, {"Idempotency-Key": str(uuid.uuid4())})
    with urllib.request.urlopen(asked) as answer:
        assert answer.status == 201


def test_it_shows_accounts_and_no_transfers_yet(page: Any) -> None:
    """Balances in units, sorted by name."""
    assert rows(page, "accounts") == [["alice", "1000.00"], ["bob", "250.00"], ["carol", "0.00"]]
    assert rows(page, "transfers") == []
    assert page.title() == "Ledger"


def test_a_transfer_of_somebody_else_appears_by_itself(page: Any, address: str) -> None:
    """The page is live: nothing is clicked, nothing reloaded."""
    send(address, "alice", "bob", 2500)
    page.wait_for_selector("#transfers tr", timeout=COLD_MS)
    assert [row[1:] for row in rows(page, "transfers")] == [["alice", "bob", "25.00"]]
    assert rows(page, "accounts")[:2] == [["alice", "975.00"], ["bob", "275.00"]]


def test_a_transfer_is_made_in_the_form(page: Any, expect: Any) -> None:
    """The answer is said, the tables follow, and the form's next transfer is another one."""
    for number in (1, 2):
        fill(page, "alice", "carol", "12.34")
        expect(page.locator("#transfers tr")).to_have_count(number, timeout=COLD_MS)
        expect(page.locator("#answer")).to_have_text("12.34 from alice to carol")
    assert rows(page, "accounts") == [["alice", "975.32"], ["bob", "250.00"], ["carol", "24.68"]]


def test_a_transfer_that_is_refused_says_why(page: Any, expect: Any, cluster: LocalDsql) -> None:
    """And moves nothing."""
    fill(page, "carol", "bob", "1.00")
    expect(page.locator("#answer")).to_have_text("refused: insufficient funds", timeout=COLD_MS)
    assert cluster.execute("SELECT balance FROM accounts WHERE id = 'carol'") == [["0"]]


def test_what_the_database_holds_is_shown_as_text(page: Any, expect: Any, cluster: LocalDsql) -> None:
    """A name that looks like HTML is a name."""
    name = "<img src=x onerror=alert(1)>"
    cluster.execute(f"INSERT INTO accounts VALUES ('{name}', 1)")
    expect(page.locator("#accounts tr")).to_have_count(4, timeout=COLD_MS)
    assert [name, "0.01"] in rows(page, "accounts")
    assert page.locator("#accounts img").count() == 0
    cluster.execute(f"DELETE FROM accounts WHERE id = '{name}'")


def test_a_ledger_that_does_not_answer_is_not_shown_as_live(page: Any) -> None:
    """It says so, and is live again when the ledger answers."""
    page.route("**/ledger/accounts", lambda route: route.abort())
    page.wait_for_selector("#state[data-live=no]", timeout=COLD_MS)
    page.unroute("**/ledger/accounts")
    page.wait_for_selector("#state[data-live=yes]", timeout=COLD_MS)
