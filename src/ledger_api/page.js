"use strict";
// Asks for accounts and transfers every second while the page is visible, and sends a transfer with a key of its own. Whatever comes
// from the API is put into the page as text, never as HTML.

const EVERY_MS = 1000;
const element = (id) => document.getElementById(id);
const money = (cents) => (cents / 100).toFixed(2);

function row(cells) {
  const made = document.createElement("tr");
  for (const [text, kind] of cells) {
    const cell = document.createElement("td");
    cell.textContent = text;
    if (kind) cell.className = kind;
    made.append(cell);
  }
  return made;
}

async function ask(path, options) {
  const response = await fetch(path, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.message ?? `status ${response.status}`);
  return answer;
}

async function refresh() {
  const { accounts } = await ask("/ledger/accounts");
  const { transfers } = await ask("/ledger/transfers?limit=50");
  element("accounts").replaceChildren(...accounts.map((each) => row([[each.id], [money(each.balance), "cents"]])));
  element("transfers").replaceChildren(
    ...transfers.map((each) => {
      const time = new Date(each.made_at).toLocaleTimeString();
      return row([[time], [each.source], [each.target], [money(each.amount), "cents"]]);
    }),
  );
}

async function poll() {
  if (!document.hidden) {
    try {
      await refresh();
      element("state").textContent = "live";
      element("state").dataset.live = "yes";
    } catch (error) {
      element("state").textContent = `not live: ${error.message}`;
      element("state").dataset.live = "no";
    }
  }
  setTimeout(poll, EVERY_MS);
}

// One key for what the form says, however often it is sent: a second click, or a try after a lost response, moves no money twice.
let key = null;
element("form").addEventListener("input", () => { key = null; });
element("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  key ??= crypto.randomUUID();
  const form = new FormData(event.target);
  const order = { source: form.get("source"), target: form.get("target"), amount: Math.round(Number(form.get("amount")) * 100) };
  const headers = { "content-type": "application/json", "idempotency-key": key };
  try {
    const made = await ask("/ledger/transfers", { method: "POST", headers, body: JSON.stringify(order) });
    element("answer").textContent = `${money(made.amount)} from ${made.source} to ${made.target}`;
    key = null;
    await refresh();
  } catch (error) {
    element("answer").textContent = `refused: ${error.message}`;
  }
});

poll();
