// The push composer: a push as JSON, its receipt, and the same as a curl line.

import { $, access, callApi, count, enable, isEnabled, make, mayCall, plural, problemWords, say } from "./page.js";
import { on, session } from "./session.js";

export function startPush() {
  access.listeners.push(composerChanged);
  on("hello", suggestTarget);
  on("rooms", suggestRooms);
  $("push").addEventListener("input", composerChanged);
  $("push").addEventListener("change", (event) => event.target.name === "to" && targetChanged());
  $("push").addEventListener("submit", (event) => {
    event.preventDefault();
    push("/v1/push", (body) => body);
  });
  $("send-many").addEventListener("click", () => push("/v1/push/batch", (body) => `{"pushes":[${Array(100).fill(body)}]}`));
  $("message").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("push").requestSubmit();
  });
  $("copy").addEventListener("click", async () => {
    if (!isEnabled($("copy"))) return;
    try {
      await navigator.clipboard.writeText($("curl").textContent);
      $("copy").textContent = "Copied";
    } catch {
      getSelection().selectAllChildren($("curl"));
      $("copy").textContent = "Selected";
    }
    setTimeout(() => ($("copy").textContent = "Copy"), 1_500);
  });
  targetChanged();
}

let listed = "";

function suggestRooms() {
  const rooms = [...session.rooms.keys()];
  if (rooms.join("\n") === listed) return;
  listed = rooms.join("\n");
  $("targets").replaceChildren(...rooms.map((room) => make("option", { value: room })));
}

const TARGETS = { all: null, room: "Room", user: "User", connection: "Connection" };

/** The push as it stands in the form, or why there is none yet. */
function compose() {
  const kind = chosenKind();
  const name = $("target").value.trim();
  const text = $("message").value.trim();
  const problems = {};
  let message = null;
  try {
    message = JSON.parse(text);
  } catch (error) {
    problems.message = text ? jsonProblem(error, text) : "Write a JSON value, such as \"hello\" or {\"n\": 1}.";
  }
  if (kind !== "all" && !name) problems.target = `Name the ${kind}.`;
  if (!mayCall()) problems.key = "Give the API key that is asked for above.";
  const push = { to: kind === "all" ? { all: true } : { [kind]: name }, message };
  if ($("lane").value) push.lane = $("lane").value;
  const ttl = $("ttl").value;
  if (ttl && !(Number.isInteger(Number(ttl)) && Number(ttl) > 0)) problems.ttl = "Whole milliseconds.";
  else if (ttl) push.ttl_ms = Number(ttl);
  // The message goes out as written: big numbers and spellings survive, which a parse and print would change.
  const { message: _, ...rest } = push;
  const body = JSON.stringify({ ...rest, message: 0 }).replace(/"message":0}$/, () => `"message":${text}}`);
  return { body, problems };
}

function jsonProblem(error, text) {
  const words = error.message.replace(/^JSON\.parse: /, "").replace(/ ?\(line.*$/, "").replace(/ in JSON at position \d+/, "");
  const at = Number(error.message.match(/position (\d+)/)?.[1] ?? NaN);
  if (Number.isNaN(at)) return `No JSON yet: ${words}.`;
  const lines = text.slice(0, at).split("\n");
  return `No JSON yet, line ${lines.length}, column ${lines.at(-1).length + 1}: ${words}.`;
}

const shellQuote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function composerChanged() {
  const { body, problems } = compose();
  say($("message-error"), problems.message ?? problems.ttl ?? "");
  $("message").setAttribute("aria-invalid", Boolean(problems.message));
  $("ttl").setAttribute("aria-invalid", Boolean(problems.ttl));
  const { key: _, ...wrong } = problems;
  const [first] = Object.values(wrong);
  for (const button of ["send", "send-many"].map($)) enable(button, !isSending && Object.keys(problems).length === 0);
  const key = access.isWanted ? ` \\\n  -H "authorization: Bearer $KEY"` : "";
  say($("curl"), first
    ?? `curl -sS ${location.origin}/v1/push \\\n  -H 'content-type: application/json'${key} \\\n  -d ${shellQuote(body)}`);
  enable($("copy"), first === undefined);
}

const chosenKind = () => document.querySelector("input[name=to]:checked").value;

function targetChanged() {
  const kind = chosenKind();
  $("target-line").hidden = kind === "all";
  $("target-label").textContent = TARGETS[kind] ?? "";
  kind === "room" ? $("target").setAttribute("list", "targets") : $("target").removeAttribute("list");
  $("target").value = "";
  suggestTarget();
}

let suggestion = "";

/** The first room, this user, this connection: filled in until another name is typed. */
function suggestTarget() {
  const isTyping = document.activeElement === $("target");
  if (!isTyping && ($("target").value === "" || $("target").value === suggestion)) {
    const { hello, rooms } = session;
    suggestion = { room: rooms.keys().next().value, user: hello?.user, connection: hello?.connection }[chosenKind()] ?? "";
    $("target").value = suggestion;
  }
  composerChanged();
}

let isSending = false;

async function push(path, asBody) {
  const { body, problems } = compose();
  const [problem] = Object.values(problems);
  if (isSending) return;
  if (problem) return showReceipt(false, [problem], null);
  isSending = true;
  composerChanged();
  const to = { kind: chosenKind(), name: $("target").value.trim() };
  const started = performance.now();
  try {
    const { status, ok, answer } = await callApi(path,
      { method: "POST", body: asBody(body), headers: { "content-type": "application/json" } });
    const took = `${(performance.now() - started).toFixed(0)} ms`;
    showReceipt(ok, ok ? receiptWords(answer, to, took) : [`Refused (${status}): ${problemWords(answer)}`], answer);
  } catch (error) {
    showReceipt(false, [`No answer from the push API: ${error.message}`], null);
  }
  isSending = false;
  composerChanged();
}

/** Why a push that was accepted reached nobody. */
function nobody({ kind, name }) {
  const named = make("em", {}, name);
  if (kind === "room") return ["nobody is in ", named];
  if (kind === "user") return [named, " is not connected"];
  return [kind === "connection" ? "there is no such connection" : "nobody is connected"];
}

/** A receipt as a person would say it. */
function receiptWords(answer, to, took) {
  const receipts = answer?.receipts ?? (Array.isArray(answer) ? answer : [answer ?? {}]);
  const sum = (name) => receipts.reduce((total, receipt) => total + (receipt?.[name] ?? 0), 0);
  const failed = new Set(receipts.flatMap((receipt) => receipt?.gateways?.failed ?? []).map((gateway) =>
    gateway?.gateway ?? gateway?.url ?? gateway));
  const refused = receipts.filter((receipt) => receipt?.code).length;
  const [matched, queued] = [sum("matched"), sum("queued")];
  const what = receipts.length > 1 ? `${receipts.length} pushes accepted` : "Accepted";
  const words = matched === 0 ? [`${what}, but `, ...nobody(to)]
    : [`${what} for ${plural(matched, receipts.length > 1 ? "delivery" : "connection", receipts.length > 1 ? "deliveries" : undefined)}`];
  if (queued < matched) words.push(`, ${count(matched - queued)} of them dropped`);
  if (refused) words.push(`, ${count(refused)} refused`);
  if (failed.size) words.push(`, failed at ${[...failed].join(", ")}`);
  return [...words, ` (${took})`];
}

function showReceipt(ok, words, answer) {
  $("receipt").hidden = false;
  $("receipt").dataset.failed = !ok;
  $("receipt-text").replaceChildren(...words);
  $("receipt-json").textContent = answer === null ? "" : JSON.stringify(answer, null, 2).slice(0, 20_000);
  $("receipt").querySelector("details").hidden = answer === null;
}
