// The rooms panel: join, leave, and whether what came is in order and whole.

import { $, WHOLE, count, draw, make, plural, say, takeAway } from "./page.js";
import { join, leave, on, session } from "./session.js";

export function startRooms() {
  on("rooms", () => draw(drawRooms));
  on("hello", () => draw(drawRooms));
  on("refused", refused);
  $("join").addEventListener("submit", (event) => {
    event.preventDefault();
    const room = $("join-room").value.trim();
    if (!room) return;
    refused("");
    join(room);
    $("join-room").value = "";
  });
}

function refused(text) {
  $("join-error").textContent = text;
  $("join-error").hidden = !text;
}

const roomRows = new Map(); // room → its row, kept so that focus and selection survive a redraw

function roomRow(room) {
  const facts = make("p");
  const order = make("p");
  const button = make("button", { type: "button", "aria-label": `Leave ${room}` }, "Leave");
  button.addEventListener("click", () => leave(room));
  facts.title = "Online as of joining";
  return { node: make("li", {}, make("strong", {}, room), facts, order, button), facts, order };
}

function roomOrder({ order, gaps, detail, received, joined }) {
  if (order === "broken") return `Order broken: ${detail}`;
  if (order === "gap") return `In order, ${plural(gaps, "message")} missing and named`;
  if (order === "anew") return "In order since the reconnect; before it unknown";
  if (!joined) return "";
  return received ? "In order, nothing missing" : "";
}

function drawRooms() {
  for (const [room, row] of roomRows) {
    if (session.rooms.has(room)) continue;
    const beside = row.node.nextElementSibling ?? row.node.previousElementSibling;
    takeAway(row.node, beside?.querySelector("button") ?? $("join-room"));
    roomRows.delete(room);
  }
  for (const [room, facts] of session.rooms) {
    if (!roomRows.has(room)) {
      roomRows.set(room, roomRow(room));
      $("rooms").append(roomRows.get(room).node);
    }
    const row = roomRows.get(room);
    say(row.facts, facts.joined
      ? `${count(facts.online)} online · seq ${WHOLE.format(facts.seq)} · ${count(facts.received)} received`
      : session.state === "open" ? "Joining…" : "Joins when connected");
    say(row.order, roomOrder(facts));
    row.order.dataset.order = facts.order;
  }
  $("rooms-empty").hidden = session.rooms.size > 0;
  const most = session.hello?.limits?.rooms;
  say($("rooms-count"), session.rooms.size ? `${session.rooms.size}${most ? ` of ${most}` : ""}` : "");
}
