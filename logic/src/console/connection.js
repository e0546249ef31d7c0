// The state at the top, the choice of user, and the panel of what HELLO says.

import { $, count, draw, make, plural, remember, seconds } from "./page.js";
import { connect, disconnect, isWanted, on, session } from "./session.js";

export function startConnection(user) {
  $("user").value = session.user = user;
  on("state", () => draw(drawState));
  on("hello", () => draw(drawFacts));
  on("hello", named);
  $("viewer").addEventListener("submit", (event) => {
    event.preventDefault();
    if (isWanted()) return disconnect();
    session.user = $("user").value.trim();
    session.token = $("token").value.trim();
    remember("user", session.user);
    session.attempt = 0;
    connect();
  });
}

/** A token says who its bearer is, whatever stands in the field. */
function named() {
  if (session.hello?.user) $("user").value = session.user = session.hello.user;
}

function drawState() {
  $("state").dataset.state = session.state;
  $("state-text").textContent = session.text;
  $("connect").textContent = isWanted() ? "Disconnect" : "Connect";
  $("user").readOnly = $("token").readOnly = isWanted();
  // 3500: the gateway wants a token, or another one.
  if (session.code === 3500) $("token-line").hidden = false;
}

function drawFacts() {
  const hello = session.hello;
  $("facts-empty").hidden = Boolean(hello);
  if (!hello) return $("facts").replaceChildren();
  const { limits = {}, reconnect = {} } = hello;
  const facts = [
    ["Connection", hello.connection, "code"],
    ["User", hello.user ?? "anonymous"],
    ["Server", hello.server],
    ["Round trip", session.rtt === null ? "…" : `${session.rtt.toFixed(session.rtt < 10 ? 1 : 0)} ms`],
    ["Server clock", `${session.skew < 0 ? "−" : "+"}${Math.abs(session.skew)} ms`],
    ["Ping after", seconds(hello.ping_ms)],
    ["Merges up to", `${count(hello.merge_ms)} ms`],
    ["Limits", `${plural(limits.rooms, "room")}, ${count(limits.message_bytes / 1024)} KB a message`],
    ["Reconnect", `${seconds(reconnect.base_ms)} to ${seconds(reconnect.max_ms)}, ${Math.round(reconnect.jitter * 100)} % random`],
  ];
  $("facts").replaceChildren(...facts.flatMap(([name, value, look = ""]) =>
    [make("dt", {}, name), make("dd", { class: look }, String(value))]));
}
