// What every panel uses: elements, numbers, drawing once per animation frame, focus, the API, memory, configuration.
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

/** Changes a text only if it is another one, so that what somebody has selected stays so. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Takes a node away. Focus that was inside goes to `next`, so that whoever uses a keyboard is not thrown to the top. */
export function takeAway(node, next) {
  const had = node.contains(document.activeElement);
  node.remove();
  if (had) next?.focus();
}

/** A button that can be pressed or not. `disabled` would take the focus from it. */
export function enable(button, isEnabled) {
  isEnabled ? button.removeAttribute("aria-disabled") : button.setAttribute("aria-disabled", "true");
}
export const isEnabled = (button) => button.getAttribute("aria-disabled") !== "true";

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

/** The key to the push API, while this page is open; and whom to tell that one is wanted, or that this one was refused. */
export const access = { key: "", isWanted: false, refused: "", listeners: [] };

/** Whether calls of the API can succeed, as far as is known. */
export const mayCall = () => !access.isWanted || access.key !== "";

/** Calls the push API of this page's own origin. */
export async function callApi(path, options = {}) {
  const headers = { ...options.headers };
  const { key } = access;
  if (key) headers.authorization = `Bearer ${key}`;
  const response = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(10_000) });
  const answer = parseOr(await response.text(), null);
  // Answers to an earlier key say nothing of the one that is here now.
  if (response.status === 401 && key === access.key) {
    Object.assign(access, { isWanted: true, key: "", refused: key && problemWords(answer) });
    access.listeners.forEach((listener) => listener());
  }
  return { status: response.status, ok: response.ok, answer };
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

/** What the server says of itself; read once, before the panels start. */
export const config = { ws_url: null, gateway_url: null, wants_token: null, wants_key: false, version: "", demo: false };

export async function loadConfig() {
  try {
    Object.assign(config, await (await fetch("/console/config.json")).json());
  } catch {
    notice("The page could not read its configuration. If it finds no gateway, write the address above.");
  }
  access.isWanted = config.wants_key;
}
