// What every panel uses: elements, numbers, drawing once per animation frame, the API, memory, configuration.
// Knows no panel and no WebSocket.

const TEXT_MAX = 600; // characters of one message shown

export const $ = (id) => document.getElementById(id);

/** Makes an element: `make("td", {class: "num"}, "12")`. Text stays text, so nothing that arrives can become markup. */
export function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
export const count = (n) => (Math.abs(n) < 100_000 ? WHOLE.format(n) : SHORT.format(n));
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
export const seconds = (ms) => (ms < 10_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 1000)} s`);
export const clip = (text) => (text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX)}…` : text);

/** JSON, or `fallback`. */
export function parseOr(text, fallback) {
  try {
    return JSON.parse(text);
  } catch {
    return fallback;
  }
}

const due = new Set();

/** Draws a view before the next frame, however often it is asked to. */
export function draw(view) {
  if (due.size === 0) requestAnimationFrame(drawAll);
  due.add(view);
}

function drawAll() {
  const views = [...due];
  due.clear();
  for (const view of views) view();
}

/** One line above everything; empty takes it away. */
export function notice(text) {
  if ($("notice").textContent === text) return;
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

/** Calls the push API of this page's own origin. */
export async function callApi(path, options = {}) {
  const headers = { ...options.headers };
  if ($("key").value) headers.authorization = `Bearer ${$("key").value}`;
  const response = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(10_000) });
  if (response.status === 401 || response.status === 403) $("key-line").hidden = false;
  return { status: response.status, ok: response.ok, answer: parseOr(await response.text(), null) };
}

export const problemWords = (answer) => answer?.detail ?? answer?.title ?? answer?.code ?? "refused without a reason";

// Memory is per tab, so that two tabs can be two users.
export function remember(name, value) {
  try {
    sessionStorage.setItem(`tidegate.${name}`, value);
  } catch { /* storage is switched off: then nothing is remembered */ }
}

export function recall(name) {
  try {
    return sessionStorage.getItem(`tidegate.${name}`);
  } catch {
    return null;
  }
}

/** Where the gateway is, and whether the demo runs; read once, before the panels start. */
export const config = { ws_url: `ws://${location.hostname}:8000/ws`, version: "", demo: false };

export async function loadConfig() {
  try {
    const { ws_url, ...rest } = await (await fetch("/console/config.json")).json();
    Object.assign(config, rest, ws_url ? { ws_url } : {});
  } catch {
    notice("The page could not read its configuration; it tries the gateway on port 8000 of this host.");
  }
}
