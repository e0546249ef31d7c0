// The agents panel: who is connected as an agent, and a button that asks one for `info` and shows what it replies.
// Shown only where there are agents; asks no more once the server says that it knows no such call.

import { $, callApi, draw, enable, isEnabled, make, mayCall, plural, problemWords, say, takeAway } from "./page.js";

const EVERY_MS = 3_000;
const SHOWN_MAX = 20;

let agents = [];
let hasMore = false;
const rows = new Map(); // connection → its row, kept so that a reply stays

export function startAgents() {
  poll();
}

async function poll() {
  let again = EVERY_MS;
  if (!mayCall()) return setTimeout(poll, 500);
  try {
    const { ok, status, answer } = await callApi(`/v1/agents?limit=${SHOWN_MAX}`);
    if (ok) {
      agents = answer?.agents ?? [];
      hasMore = Boolean(answer?.cursor);
    } else if (status === 404) return;
  } catch {
    again = 2 * EVERY_MS; // the figures say that the API is away
  }
  draw(drawAgents);
  setTimeout(poll, document.hidden ? 5 * again : again);
}

function rowOf(agent) {
  const reply = make("pre", { hidden: "", tabindex: "0" });
  const button = make("button", { type: "button" }, "Info");
  const name = agent.user ?? agent.id;
  button.setAttribute("aria-label", `Ask ${name} for info`);
  button.addEventListener("click", () => isEnabled(button) && ask(agent.user, button, reply));
  const since = agent.since_ms ? ` · since ${new Date(agent.since_ms).toLocaleTimeString("en", { hour12: false })}` : "";
  const node = make("li", {}, make("strong", {}, name), make("p", {}, `${agent.address}${since}`), reply);
  if (agent.user) node.append(button); // a command goes to a user
  return node;
}

async function ask(user, button, reply) {
  enable(button, false);
  reply.hidden = false;
  reply.textContent = "asking…";
  try {
    const { ok, answer } = await callApi(`/v1/agents/${encodeURIComponent(user)}/command`, {
      method: "POST", headers: { "content-type": "application/json" },
      body: JSON.stringify({ command: "info", data: null, timeout_ms: 5_000 }),
    });
    const told = answer?.reply?.error ?? answer?.reply?.data;
    reply.textContent = ok ? JSON.stringify(told ?? null, null, 2).slice(0, 20_000) : problemWords(answer);
  } catch (error) {
    reply.textContent = `No answer from the API: ${error.message}`;
  }
  enable(button, true);
}

function drawAgents() {
  const here = new Set(agents.map((agent) => agent.id));
  for (const [id, node] of rows) {
    if (here.has(id)) continue;
    takeAway(node, $("main"));
    rows.delete(id);
  }
  for (const agent of agents) {
    if (rows.has(agent.id)) continue;
    rows.set(agent.id, rowOf(agent));
    $("agents").append(rows.get(agent.id));
  }
  $("agents-panel").hidden = agents.length === 0;
  say($("agents-count"), hasMore ? `the first ${SHOWN_MAX}` : plural(agents.length, "agent"));
}
