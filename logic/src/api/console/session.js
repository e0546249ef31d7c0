// The connection of this page: connects, reconnects as the server advises, keeps rooms and their numbering.
// Draws nothing; tells the panels through `on`. The arithmetic of the rules is in `rules.js`.
// Invariant: only frames of the current socket count; a room in `rooms` is wanted, `joined` says whether the server has it.

import { clip, parseOr, plural, remember, seconds } from "./page.js";
import { afterClose, follow } from "./rules.js";

const STABLE_MS = 10_000; // a connection that lasted so long resets the back-off
const TOKEN_REFUSED = 3500; // the close code
const SILENCE_MS = 1_500; // a gateway that has opened the socket and says no HELLO for so long waits for a token

export const session = {
  socket: null,
  state: "idle", // idle → connecting → open → waiting → connecting …, asking (for a token), or closed for good
  text: "Not connected",
  more: "", // what changes twice a second: when it is tried again
  url: "", // of the gateway
  user: "",
  isNameless: false, // a try without the name, because a browser is not told that names are refused (403)
  token: "", // where the gateway wants one: the first message
  answered: "", // the last address at which a gateway did answer
  wants: "", // what the person has to do before it can work: "token", or "address" while nothing answers at this one
  refused: "", // why the last token was, in the server's word
  hello: null, // what the server said, while connected
  advice: null, // HELLO.reconnect of the last connection
  goaway: null, // [lo, hi] in ms, once the server has announced its close
  rtt: null,
  skew: 0,
  attempt: 0,
  code: null, // of the last close
  openedAt: 0,
  retryAt: 0,
  timers: [],
  rooms: new Map(), // room → {joined, online, epoch, seq, received, gaps, order, detail}
  others: new Map(), // numberings outside rooms: everyone, the user
  nextId: 1,
  asked: new Map(), // id → how to answer whoever waits for the reply; emptied by replies and by the close
};

const listeners = { state: [], hello: [], pong: [], rooms: [], refused: [], push: [], presence: [], note: [] };

/** Events: state(), hello(), pong(), rooms(), refused(text), push(kind, data, first), presence(data), note(kind, to, text). */
export const on = (event, listener) => listeners[event].push(listener);
const tell = (event, ...values) => listeners[event].forEach((listener) => listener(...values));

export const isWanted = () => ["connecting", "open", "waiting"].includes(session.state);

function become(state, text, more = "") {
  Object.assign(session, { state, text, more });
  tell("state");
}

export function connect() {
  session.timers.splice(0).forEach(clearTimeout);
  const url = new URL(session.url);
  if (session.user && !session.isNameless) url.searchParams.set("user", session.user);
  url.searchParams.set("platform", "web");
  Object.assign(session, { goaway: null, openedAt: 0, rtt: null });
  if (session.wants === "token" && !session.token) return become("asking", "Waiting for a token");
  become("connecting", "Connecting…");
  let socket;
  try {
    socket = new WebSocket(url);
  } catch (error) {
    session.wants = "address";
    return become("closed", `Cannot connect: ${error.message}`);
  }
  session.socket = socket;
  socket.onopen = () => socket === session.socket && opened();
  socket.onmessage = (event) => socket === session.socket && receive(event.data);
  socket.onclose = (event) => socket === session.socket && closed(event);
}

function opened() {
  session.answered = session.url;
  if (session.wants === "address") session.wants = "";
  if (session.token) return send("AUTH", { token: session.token });
  session.timers.push(setTimeout(() => {
    session.wants = "token";
    become("connecting", "The gateway waits");
  }, SILENCE_MS));
}

export function disconnect() {
  leaveSocket();
  become("idle", "Disconnected");
}

/** Connects anew, perhaps to another gateway or as somebody else. */
export function reconnect(changes) {
  leaveSocket();
  if (changes.url !== undefined && changes.url !== session.url) session.wants = "";
  Object.assign(session, { isNameless: false }, changes);
  connect();
}

function leaveSocket() {
  const { socket } = session;
  release();
  socket?.close(1000);
  session.attempt = 0;
}

/** Forgets what belonged to the connection that ends; rooms stay wanted. */
function release() {
  session.timers.splice(0).forEach(clearTimeout);
  Object.assign(session, { socket: null, hello: null });
  session.others.clear();
  for (const room of session.rooms.values()) room.joined = false;
  for (const { reject } of session.asked.values()) reject(refusal("the connection ended; it may have been sent", true));
  session.asked.clear();
  tell("hello");
  tell("rooms");
}

function closed({ code, reason }) {
  const wasOpen = session.hello !== null;
  if (session.openedAt && performance.now() - session.openedAt > STABLE_MS) session.attempt = 0;
  const next = afterClose(code, reason, {
    attempt: session.attempt++, advice: session.advice, goaway: session.goaway, chance: Math.random() });
  release();
  session.code = code;
  const said = parseOr(reason, null)?.reason ?? reason;
  if (code === TOKEN_REFUSED) return tokenRefused(said, wasOpen);
  if (code === 1006 && session.answered !== session.url) {
    session.wants = "address";
    session.isNameless = !session.isNameless && session.user !== "";
  }
  session.why = wasOpen || code !== 1006 ? `Closed ${code}${said ? ` (${said})` : ""}` : "No connection";
  if (wasOpen) tell("note", "note", "", session.why);
  if (next.stop) return become("closed", `${session.why}, for good`);
  session.retryAt = performance.now() + next.delay;
  session.timers.push(setTimeout(connect, next.delay));
  countDown();
}

/** Close 3500: there was no token, or it is no good, or its time is over. */
function tokenRefused(code, wasOpen) {
  session.refused = session.token ? code : "";
  Object.assign(session, { wants: "token", token: "" });
  if (wasOpen) tell("note", "note", "", `Closed 3500 (${code})`);
  become("asking", "Waiting for a token");
}

function countDown() {
  const left = session.retryAt - performance.now();
  become("waiting", session.why, `, again in ${seconds(Math.max(left, 0))}`);
  if (left > 200) session.timers.push(setTimeout(countDown, Math.min(500, left)));
}

function send(type, data) {
  if (session.socket?.readyState !== WebSocket.OPEN) return;
  session.socket.send(JSON.stringify({ type, id: session.nextId++, data }));
}

const refusal = (text, retryable) => Object.assign(new Error(text), { retryable });

/** Sends and awaits the reply's `data`; fails with the ERROR's message and whether it is worth another try. */
export function request(type, data) {
  if (session.socket?.readyState !== WebSocket.OPEN) return Promise.reject(refusal("not connected", true));
  const id = session.nextId;
  send(type, data);
  return new Promise((resolve, reject) => session.asked.set(id, { resolve, reject }));
}

/** The request that a reply is for, or undefined. */
function takeAsked(id) {
  const asked = session.asked.get(id);
  session.asked.delete(id);
  return asked;
}

function ping() {
  send("PING", { sent: Math.round(performance.now() * 1000) });
  // The server pings by itself; this one only measures the round trip.
  session.timers.push(setTimeout(ping, 10_000));
}

const wanted = () => ({ received: 0, gaps: 0, order: "whole", joined: false });

export function join(room) {
  if (session.rooms.has(room)) return;
  session.rooms.set(room, wanted());
  send("JOIN", { room });
  roomsChanged();
}

export function leave(room) {
  const joined = session.rooms.get(room)?.joined;
  session.rooms.delete(room);
  if (joined) send("LEAVE", { room });
  roomsChanged();
}

function roomsChanged() {
  remember("rooms", JSON.stringify([...session.rooms.keys()]));
  tell("rooms");
}

function receive(text) {
  const frame = parseOr(text, null);
  const handler = Object.hasOwn(handlers, frame?.type) && handlers[frame.type];
  if (handler) handler(frame.data ?? {}, frame.id);
  else tell("note", "note", "", `Unknown frame: ${clip(String(text))}`);
}

const handlers = {
  HELLO(data) {
    session.timers.splice(0).forEach(clearTimeout);
    Object.assign(session, { wants: "", refused: "" });
    Object.assign(session, { hello: data, advice: data.reconnect, skew: data.time_ms - Date.now(), openedAt: performance.now() });
    const anonymous = session.isNameless ? "Connected, anonymous: no names here without tokens" : "Connected, anonymous";
    become("open", data.user ? `Connected as ${data.user}` : anonymous);
    const rooms = [...session.rooms.keys()];
    if (rooms.length) send("JOIN", { rooms });
    // After the page has settled, so that its own start is not measured.
    session.timers.push(setTimeout(ping, 500));
    tell("hello");
  },
  PONG(data) {
    session.rtt = performance.now() - data.sent / 1000;
    tell("pong");
  },
  JOINED({ rooms = [] }, id) {
    for (const joined of rooms) {
      // Not asked for: a service has put this connection in.
      if (id === undefined && !joined.error && !session.rooms.has(joined.room)) session.rooms.set(joined.room, wanted());
      const room = session.rooms.get(joined.room);
      if (!room) continue; // left again in the meantime
      if (joined.error) {
        session.rooms.delete(joined.room);
        tell("refused", `${joined.room}: ${joined.error.message ?? joined.error.code}`);
        continue;
      }
      if (room.epoch !== undefined && room.epoch !== joined.epoch) {
        // A gateway that restarted numbers from 1 again: what it sent in between cannot be known.
        if (room.order === "whole") room.order = "anew";
        tell("note", "gap", joined.room, "Numbering began anew; whether messages were missed in between is unknown");
      }
      const missed = room.epoch === joined.epoch ? joined.seq - room.seq : 0;
      if (missed > 0) missing(room, joined.room, { from: room.seq + 1, to: joined.seq, reason: "while not connected" });
      Object.assign(room, { online: joined.online, epoch: joined.epoch, seq: joined.seq, joined: true });
    }
    roomsChanged();
  },
  LEFT({ room, reason }, id) {
    if (id !== undefined) return; // the room went from the page when LEAVE was sent
    session.rooms.delete(room);
    tell("note", "note", room, `A service has ended the membership${reason ? ` (${reason})` : ""}`);
    roomsChanged();
  },
  PRESENCE(data) {
    const room = session.rooms.get(data.room);
    if (room) room.online = data.online;
    tell("presence", data);
    tell("rooms");
  },
  SENT(data, id) {
    takeAsked(id)?.resolve(data);
  },
  PUSH(data) {
    const [first, last] = data.seq ?? [];
    const kind = data.room !== undefined ? "room" : data.user ? "user" : "all";
    const track = trackOf(kind, data.room);
    if (track) {
      track.received = (track.received ?? 0) + data.items.length;
      const wrong = first === undefined ? null : follow(track, data.epoch, first, last);
      if (wrong) broken(track, data.room ?? kind, wrong);
      if (kind === "room") tell("rooms");
    }
    tell("push", kind, data, first);
  },
  GAP(data) {
    const kind = data.room !== undefined ? "room" : data.user ? "user" : "all";
    missing(trackOf(kind, data.room), data.room ?? kind, data);
  },
  ERROR(data, id) {
    const asked = takeAsked(id);
    if (asked) return asked.reject(refusal(data.message ?? data.code, Boolean(data.retryable)));
    tell("note", "gap", "", `Error ${data.code}: ${data.message}`);
  },
  GOAWAY(data) {
    session.goaway = data.reconnect_after_ms;
    const [lo, hi] = session.goaway.map(seconds);
    tell("note", "note", "", `The server is about to close (${data.reason}); reconnecting in ${lo} to ${hi}`);
  },
};

function trackOf(kind, room) {
  if (kind === "room") return session.rooms.get(room);
  if (!session.others.has(kind)) session.others.set(kind, {});
  return session.others.get(kind);
}

function broken(track, name, detail) {
  Object.assign(track, { order: "broken", detail });
  tell("note", "broken", name, `Order broken: ${detail}`);
}

/** Rule M-3: what is missing, said exactly. A gap that does not begin where the numbering stood is itself a break. */
function missing(track, name, { from, to, missed, reason }) {
  const size = missed ?? to - from + 1;
  const range = from === undefined ? "" : ` (${from} to ${to})`;
  tell("note", "gap", name, `Gap: ${plural(size, "message")} missing${range}, ${reason}`);
  if (!track) return;
  track.gaps = (track.gaps ?? 0) + size;
  if (track.order !== "broken") track.order = "gap";
  const wrong = from === undefined ? null : follow(track, undefined, from, to);
  if (wrong) broken(track, name, wrong);
  tell("rooms");
}
