// The state at the top, the choice of gateway and user, and the panel of what HELLO says.

import { $, config, count, draw, make, plural, recall, remember, say, seconds } from "./page.js";
import { asWebSocketUrl, gatewayUrl } from "./place.js";
import { disconnect, isWanted, on, reconnect, session } from "./session.js";

export function startConnection(user) {
  $("user").value = session.user = user;
  $("gateway").value = session.url = recall("gateway") ?? gatewayUrl(config, location);
  if (config.wants_token) session.wants = "token";
  on("state", () => draw(drawState));
  on("hello", () => draw(drawFacts));
  on("pong", () => draw(drawFacts));
  on("hello", named);
  $("viewer").addEventListener("input", () => draw(drawState));
  $("viewer").addEventListener("submit", (event) => {
    event.preventDefault();
    if (isWanted() && !isChanged()) return disconnect();
    const url = asWebSocketUrl($("gateway").value.trim(), location);
    $("gateway").setAttribute("aria-invalid", url === null);
    if (url === null) return $("gateway").focus();
    $("gateway").value = url;
    const user = $("user").value.trim();
    remember("user", user);
    if (url !== session.url) remember("gateway", url);
    reconnect({ url, user });
    if (session.wants === "token" && !session.token) $("token").focus();
  });
}

const isChanged = () => $("gateway").value.trim() !== session.url || $("user").value.trim() !== session.user;

/** A token says who its bearer is, whatever stands in the field. */
function named() {
  const { hello, token } = session;
  if (hello?.user && (token || !isChanged())) $("user").value = session.user = hello.user;
}

function drawState() {
  $("state").dataset.state = session.state;
  say($("state-text"), session.text);
  say($("state-more"), session.more);
  say($("connect"), !isWanted() ? "Connect" : isChanged() ? "Reconnect" : "Disconnect");
  $("user-line").hidden = session.wants === "token" || session.token !== "";
}

const rows = new Map(); // what a fact is called → its value's element, kept so that a selection in it stays

function drawFacts() {
  const hello = session.hello;
  $("facts-empty").hidden = Boolean(hello);
  $("facts").hidden = !hello;
  if (!hello) return;
  const { limits = {}, reconnect: back = {} } = hello;
  const facts = [
    ["Connection", hello.connection, "code"],
    ["User", hello.user ?? "anonymous"],
    ["Server", hello.server],
    ["Round trip", session.rtt === null ? "…" : `${session.rtt.toFixed(session.rtt < 10 ? 1 : 0)} ms`],
    ["Server clock", `${session.skew < 0 ? "−" : "+"}${Math.abs(session.skew)} ms`],
    ["Ping after", seconds(hello.ping_ms)],
    ["Merges up to", `${count(hello.merge_ms)} ms`],
    ["Limits", `${plural(limits.rooms, "room")}, ${count(limits.message_bytes / 1024)} KB a message`],
    ["Reconnect", `${seconds(back.base_ms)} to ${seconds(back.max_ms)}, ${Math.round(back.jitter * 100)} % random`],
  ];
  for (const [name, value, look = ""] of facts) {
    if (!rows.has(name)) {
      rows.set(name, make("dd", { class: look }));
      $("facts").append(make("div", {}, make("dt", {}, name), rows.get(name)));
    }
    say(rows.get(name), String(value));
  }
}
