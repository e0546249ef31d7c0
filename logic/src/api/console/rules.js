// The rules of the client protocol that take arithmetic (M-2, E-3), as pure functions: no socket, no clock, no chance of their own.

import { parseOr, plural } from "./page.js";

/** What to do after a close (rule E-3): `{stop}`, or a delay in ms. `chance` is uniform in 0..1. */
export function afterClose(code, reason, { attempt, advice, goaway, chance }) {
  if (code >= 3500 && code <= 3999) return { stop: true };
  if (goaway) return { delay: goaway[0] + (goaway[1] - goaway[0]) * chance };
  if (code >= 4000 && code <= 4499 && attempt === 0) return { delay: 0 };
  const base = advice?.base_ms ?? 500;
  const ceiling = Math.min(advice?.max_ms ?? 20_000, base * 2 ** Math.min(attempt, 16));
  // Until a server has said what share of the wait is to be random, all of it is.
  const jitter = Number.isFinite(advice?.jitter) ? Math.min(Math.max(advice.jitter, 0), 1) : 1;
  const asked = Number(parseOr(reason, {})?.retry_after_ms) || 0;
  return { delay: asked + ceiling * (1 - jitter + jitter * chance) };
}

/** Moves one numbering on by `first..last` (rule M-2). Returns what is wrong, or null. */
export function follow(track, epoch, first, last) {
  let wrong = null;
  if (track.epoch !== undefined && epoch !== undefined && epoch !== track.epoch) {
    wrong = `numbering began anew (epoch ${track.epoch} to ${epoch}) without a JOIN`;
  } else if (track.seq !== undefined && first !== track.seq + 1) {
    wrong = `expected ${track.seq + 1}, got ${first}: ${
      first > track.seq ? `${plural(first - track.seq - 1, "message")} missing and no GAP` : "seen before"}`;
  }
  track.epoch = epoch ?? track.epoch;
  track.seq = last;
  return wrong;
}
