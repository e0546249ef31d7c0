// The list of what arrives, newest first.
// What arrives only fills arrays; the page is drawn once per animation frame from at most ROWS_MAX of it, so that ten thousand
// messages a second cost no more to draw than two hundred a frame.

import { $, clip, count, draw, make, plural } from "./page.js";
import { on } from "./session.js";

const ROWS_MAX = 200; // messages kept and shown

export function startStream() {
  on("push", arrived);
  on("note", note);
  setInterval(measure, 1_000);
  $("stream-pause").addEventListener("click", () => {
    stream.paused = !stream.paused;
    stream.held = 0;
    $("stream-pause").setAttribute("aria-pressed", stream.paused);
    draw(drawStream);
  });
  $("stream-clear").addEventListener("click", () => {
    stream.fresh.length = 0;
    stream.held = 0;
    $("stream").replaceChildren();
    draw(drawStream);
  });
  $("stream-filter").addEventListener("change", (event) => {
    stream.filter = event.target.value;
  });
}

const stream = { fresh: [], paused: false, held: 0, filter: "", messages: 0, frames: 0, at: performance.now() };

function arrived(kind, { room, items }, first) {
  stream.messages += items.length;
  stream.frames += 1;
  if (stream.filter && stream.filter !== kind) return;
  if (stream.paused) {
    stream.held += items.length;
    return draw(drawStream);
  }
  // Outside any numbering: for this connection, or for a choice of connections that this one is part of.
  const to = room ?? (kind === "user" ? "user" : first === undefined ? "you" : "everyone");
  // Only the last rows of a frame can be seen; the rest is counted and not even made into text.
  for (let i = Math.max(0, items.length - ROWS_MAX); i < items.length; i++) {
    stream.fresh.push({ kind, to, seq: first === undefined ? "" : first + i,
      item: items[i], merged: i < items.length - 1, time: Date.now() });
  }
  keepFresh();
}

/** A line of the page's own (a gap, a break, a close): shown whatever the filter. */
function note(kind, to, text) {
  stream.fresh.push({ kind, to, seq: "", text, merged: false, time: Date.now() });
  keepFresh();
}

function keepFresh() {
  if (stream.fresh.length > 2 * ROWS_MAX) stream.fresh.splice(0, stream.fresh.length - ROWS_MAX);
  draw(drawStream);
}

const TWO = (n, size = 2) => String(n).padStart(size, "0");

function fillRow(row, { kind, to, seq, item, text, merged, time }) {
  const at = new Date(time);
  const [when, whom, number, what] = row.cells;
  when.firstChild.data = `${TWO(at.getHours())}:${TWO(at.getMinutes())}:${TWO(at.getSeconds())}`;
  when.lastChild.textContent = `.${TWO(at.getMilliseconds(), 3)}`;
  whom.textContent = to;
  whom.title = to;
  number.textContent = seq;
  what.textContent = clip(text ?? spaced(item));
  row.dataset.kind = kind;
  row.dataset.merged = merged;
}

/** JSON on one line, with room to break at. */
const spaced = (item) => JSON.stringify(item, null, 1).replace(/([{[])\n\s*/g, "$1").replace(/\n\s*([}\]])/g, "$1").replace(/\n\s*/g, " ");

function emptyRow() {
  const time = make("td", {}, "", make("span", { class: "ms" }));
  time.prepend(document.createTextNode(""));
  time.setAttribute("role", "cell"); // roles are spelled out because narrow windows lay rows out as grids
  return make("tr", { role: "row" }, time, ...["", "num", ""].map((look) => make("td", { role: "cell", class: look })));
}

function drawStream() {
  const body = $("stream");
  const fresh = stream.paused ? [] : stream.fresh.splice(0).slice(-ROWS_MAX);
  if (fresh.length) {
    const scroll = body.closest(".scroll");
    const before = scroll.scrollTop;
    const height = body.offsetHeight;
    const top = document.createDocumentFragment();
    // Newest first. Rows at the bottom are taken over, so the page never holds more than ROWS_MAX.
    for (let i = fresh.length - 1; i >= 0; i--) {
      const row = body.rows.length + top.childElementCount < ROWS_MAX ? emptyRow() : body.lastElementChild ?? emptyRow();
      fillRow(row, fresh[i]);
      top.append(row);
    }
    body.prepend(top);
    // Someone who has scrolled down to read keeps the place.
    if (before > 0) scroll.scrollTop = before + body.offsetHeight - height;
  }
  $("stream-empty").hidden = body.rows.length > 0;
  $("stream-pause").textContent = stream.paused && stream.held ? `Resume (${count(stream.held)})` : stream.paused ? "Resume" : "Pause";
}

/** Once a second: what came since the last time. */
function measure() {
  const now = performance.now();
  const rate = stream.messages / ((now - stream.at) / 1000);
  const merged = stream.frames ? stream.messages / stream.frames : 0;
  $("stream-rate").textContent = stream.messages
    ? `${plural(rate < 10 ? Math.round(rate * 10) / 10 : Math.round(rate), "message")}/s, ${
      merged.toFixed(1)} a frame${rate > ROWS_MAX ? `, the last ${ROWS_MAX} shown` : ""}` : "";
  Object.assign(stream, { messages: 0, frames: 0, at: now });
}
