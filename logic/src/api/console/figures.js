// The live figures: `GET /v1/stats` once a second, differences per second, a minute of each as a line.

import { $, callApi, count, draw, make, mayCall, notice, plural, problemWords } from "./page.js";

const SAMPLES_MAX = 60; // one a second: a minute
// Rates are over three seconds: gateways report about once a second, and two clocks of one second beat against each other.
const READINGS_MAX = 4;

// name, unit, value of (now, per second since before), note; `isFirst`: one of the three that a telephone has room for. A value of null draws as a dash and as zero in the line.
const FIGURES = [
  { name: "Connections", isFirst: true, value: (s) => s.connections, note: (s) => plural(s.gateways, "gateway") },
  { name: "Deliveries", isFirst: true, unit: "/s", value: (_, per) => per?.written, note: (_, per) => per && `${count(per.frames)} frames/s` },
  { name: "Merged", isFirst: true, unit: "a frame", value: (_, per) => (per?.frames ? per.written / per.frames : null), digits: 1,
    note: (_, per) => per && `${count(per.encoded)} encoded/s` },
  { name: "Merge window", unit: "ms", value: (s) => s.window, note: () => "widest open now" },
  { name: "Rooms", value: (s) => s.rooms },
  { name: "Users", value: (s) => s.users },
  { name: "Pending", value: (s) => s.pending, note: () => "not yet written" },
  { name: "Dropped", value: (s) => s.dropped, note: (_, per) => per && (per.dropped ? `${count(per.dropped)}/s` : "none now"),
    alarm: (_, per) => per?.dropped > 0 },
];

const figures = { readings: [], failures: 0 };

export function startFigures() {
  for (const figure of FIGURES) {
    figure.samples = [];
    figure.number = document.createTextNode("–");
    figure.noteNode = make("p", { class: "note" });
    figure.area = make("path", { class: "area" });
    figure.line = make("path", { class: "line" });
    figure.node = make("div", { class: figure.isFirst ? "figure first" : "figure" }, make("h2", {}, figure.name),
      make("p", { class: "value" }, figure.number, " ", make("small", {}, figure.unit ?? "")), figure.noteNode,
      make("svg", { viewBox: `0 0 ${SAMPLES_MAX - 1} 30`, preserveAspectRatio: "none", "aria-hidden": "true" }, figure.area, figure.line));
    $("figures").append(figure.node);
  }
  poll();
}

const amount = (value) => (value !== null && typeof value === "object"
  ? Object.values(value).reduce((sum, part) => sum + amount(part), 0) : Number(value) || 0);

/** The figures out of `GET /v1/stats`. `dropped` may come in parts by reason; gateways as a list or a count. */
export function readStats(stats) {
  const { messages = {}, frames = {} } = stats;
  return { at: performance.now(), connections: amount(stats.connections), rooms: amount(stats.rooms), users: amount(stats.users),
    window: amount(stats.window_ms), gateways: Array.isArray(stats.gateways) ? stats.gateways.length : amount(stats.gateways),
    written: amount(messages.written), pending: amount(messages.pending), dropped: amount(messages.dropped),
    encoded: amount(frames.encoded), frames: amount(frames.written) };
}

/** Differences per second; null when there is no earlier reading, or a counter went back because a gateway restarted. */
export function perSecond(now, before) {
  if (!before || now.written < before.written || now.frames < before.frames) return null;
  const elapsed = (now.at - before.at) / 1000;
  const rate = (name) => Math.max(0, now[name] - before[name]) / elapsed;
  return { written: rate("written"), frames: rate("frames"), encoded: rate("encoded"), dropped: rate("dropped") };
}

async function poll() {
  const started = performance.now();
  if (!mayCall()) notice("");
  else if (!document.hidden) {
    try {
      const { ok, status, answer } = await callApi("/v1/stats");
      if (status === 401) return setTimeout(poll, 200); // the banner asks for a key
      if (!ok || !answer) throw new Error(`${status}: ${problemWords(answer)}`);
      const now = readStats(answer);
      const per = perSecond(now, figures.readings[0]);
      // A counter that went back: what was read before belongs to another life.
      if (per === null) figures.readings.length = 0;
      figures.readings.push(now);
      if (figures.readings.length >= READINGS_MAX) figures.readings.shift();
      figures.failures = 0;
      notice("");
      sample(now, per);
      draw(drawFigures);
    } catch (error) {
      figures.failures += 1;
      figures.readings.length = 0;
      if (figures.failures > 1) notice(`No live figures from the push API (${error.message}). Trying again.`);
    }
    $("figures").dataset.stale = figures.failures > 1;
  }
  setTimeout(poll, Math.max(200, 1_000 - (performance.now() - started)));
}

function sample(now, per) {
  for (const figure of FIGURES) {
    const value = figure.value(now, per) ?? null;
    figure.now = value;
    figure.says = figure.note?.(now, per) || "";
    figure.alarmed = Boolean(figure.alarm?.(now, per));
    figure.samples.push(value ?? 0);
    if (figure.samples.length > SAMPLES_MAX) figure.samples.shift();
  }
}

function drawFigures() {
  for (const figure of FIGURES) {
    figure.number.data = figure.now === null ? "–" : figure.digits ? figure.now.toFixed(figure.digits) : count(Math.round(figure.now));
    if (figure.noteNode.textContent !== figure.says) figure.noteNode.textContent = figure.says;
    figure.node.dataset.alarm = figure.alarmed;
    const top = Math.max(1, ...figure.samples) * 1.15;
    const from = SAMPLES_MAX - figure.samples.length;
    const points = figure.samples.map((value, i) => `${from + i} ${(29 - (value / top) * 28).toFixed(2)}`);
    figure.line.setAttribute("d", `M${points.join("L")}`);
    figure.area.setAttribute("d", `M${from} 30L${points.join("L")}L${SAMPLES_MAX - 1} 30Z`);
  }
}
