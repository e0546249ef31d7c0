// The chat panel: what people say to a room or to one another (SEND), who comes and goes (PRESENCE), images by their address.
// What arrives is text until `bodyOf` has looked at it; nothing of it becomes markup, and only https: and data: images are loaded.
// Invariant: a message is one line, however its SENT and its echo in the room overtake each other.

import { $, clip, draw, enable, isEnabled, make, plural, say as write, takeAway } from "./page.js";
import { on, request, session } from "./session.js";

const LINES_MAX = 200; // lines kept and shown
const IMAGE = /^(https:\/\/\S+\.(png|jpe?g|gif|webp|avif|svg)(\?\S*)?|data:image\/(png|jpeg|gif|webp|avif);base64,[A-Za-z0-9+/=]+)$/i;

const lines = []; // oldest first, as `lineOf` makes them
let suggestion = "";

export function startChat() {
  on("push", heard);
  on("presence", passed);
  on("rooms", () => draw(drawChat));
  on("state", () => draw(drawChat));
  $("chat-to").addEventListener("input", () => draw(drawChat));
  $("chat").addEventListener("submit", (event) => {
    event.preventDefault();
    const to = audience($("chat-to").value.trim());
    const text = $("chat-text").value.trim();
    if (!to || !text || !isEnabled($("chat-send"))) return;
    $("chat-text").value = "";
    say(to, IMAGE.test(text) ? { kind: "image", url: text, from: session.user || undefined } : { text });
  });
}

/** `@bob` is a user, everything else a room. */
const audience = (text) => (text.startsWith("@") ? text.length > 1 && { user: text.slice(1) } : text && { room: text });
const spelled = ({ user, room }) => (user === undefined ? room : `@${user}`);

function say(to, data) {
  const nonce = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 12)}`;
  const line = lineOf(session.user || "you", spelled(to), bodyOf(data));
  add(line);
  send(line, { to, data, nonce });
}

/** Sends it, also again: the nonce makes that harmless. */
async function send(line, message) {
  line.state = "sending…";
  line.retry = null;
  draw(drawChat);
  try {
    const { id } = await request("SEND", message);
    line.state = "";
    line.id = id;
    if (lines.some((other) => other !== line && other.id === id)) remove(line);
  } catch (error) {
    line.state = error.message;
    line.retry = error.retryable ? () => send(line, message) : null;
  }
  draw(drawChat);
}

function heard(kind, { room, items }) {
  for (const item of items) {
    if (!isSaid(item) || lines.some((line) => line.id === item.id)) continue;
    const who = String(item.from ?? `anonymous ${String(item.connection).slice(-4)}`);
    add(lineOf(who, room ?? "to you", bodyOf(item.data), { id: item.id, user: item.from, time: item.time_ms }));
  }
}

/** Whether an item of PUSH was said by a client: the gateway's logic puts these members around what clients say. */
const isSaid = (item) => item !== null && typeof item === "object" && typeof item.id === "string"
  && typeof item.time_ms === "number" && "data" in item && (typeof item.from === "string" || typeof item.connection === "string");

function passed({ room, joined = 0, left = 0, online, sample = [] }) {
  const names = sample.length ? ` (${sample.slice(0, 4).join(", ")}${joined > 4 ? ", …" : ""})` : "";
  const parts = [joined && `${plural(joined, "joined", "joined")}${names}`, left && plural(left, "left", "left")].filter(Boolean);
  if (parts.length) add(lineOf("", room, [`${parts.join(", ")}; ${online} online`], { isNote: true }));
}

/** What somebody said, as nodes. */
function bodyOf(data) {
  if (typeof data === "string") return [clip(data)];
  if (typeof data?.text === "string") return [clip(data.text)];
  if (data?.kind === "image" && isLoadable(data.url)) {
    const image = make("img", { src: data.url, alt: clip(String(data.alt ?? "image")), loading: "lazy", referrerpolicy: "no-referrer" });
    image.addEventListener("error", () => image.replaceWith(clip(`image that does not load: ${data.url}`)));
    return [image];
  }
  return [clip(JSON.stringify(data) ?? "")];
}

function isLoadable(url) {
  try {
    return typeof url === "string" && (new URL(url).protocol === "https:" || /^data:image\//i.test(url));
  } catch {
    return false;
  }
}

/** `id` once the server has given one; `user` whom a click on the name writes to; `retry` what sends it again. */
const lineOf = (who, where, body, rest) => ({ who, where, body, time: Date.now(), state: "", retry: null, ...rest });

function add(line) {
  lines.push(line);
  while (lines.length > LINES_MAX) remove(lines[0]);
  draw(drawChat);
}

function remove(line) {
  lines.splice(lines.indexOf(line), 1);
  if (line.node) takeAway(line.node, $("chat-text"));
}

function nodeOf(line) {
  const canAnswer = line.user !== undefined && line.user !== session.user;
  const who = canAnswer
    ? make("button", { type: "button", title: `Write to ${line.user}` }, line.who) : make("strong", {}, line.who);
  if (canAnswer) who.addEventListener("click", () => address(`@${line.user}`));
  const time = new Date(line.time).toLocaleTimeString("en", { hour: "2-digit", minute: "2-digit", hour12: false });
  line.status = make("span", { class: "quiet" });
  const head = line.who ? [who, " "] : [];
  return make("li", line.isNote ? { class: "note" } : {}, make("p", { class: "quiet" }, `${time} · ${line.where}`),
    make("p", {}, ...head, ...line.body, " ", line.status));
}

function address(to) {
  $("chat-to").value = to;
  $("chat-text").focus();
  draw(drawChat);
}

function drawChat() {
  const log = $("chat-log");
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  for (const line of lines) {
    if (!line.node) log.append((line.node = nodeOf(line)));
    drawStatus(line);
  }
  if (isAtEnd) log.scrollTop = log.scrollHeight;
  log.hidden = lines.length === 0;
  $("chat-empty").hidden = lines.length > 0;
  const first = [...session.rooms].find(([, room]) => room.joined)?.[0] ?? "";
  const isTyping = document.activeElement === $("chat-to");
  if (!isTyping && $("chat-to").value === suggestion && first !== suggestion) $("chat-to").value = suggestion = first;
  enable($("chat-send"), session.state === "open");
  const room = session.rooms.get($("chat-to").value.trim());
  write($("chat-presence"), room?.joined ? `${room.online} online in ${$("chat-to").value.trim()}` : "");
}

function drawStatus(line) {
  const { status, state, retry } = line;
  if (line.drawn === state) return;
  line.drawn = state;
  const had = status.contains(document.activeElement);
  status.textContent = state;
  if (had) $("chat-text").focus();
  if (!retry) return;
  const again = make("button", { type: "button" }, "Retry");
  again.addEventListener("click", retry);
  status.append(" ", again);
}
