// The banner: what this gateway or its API wants of the person before it can work, in plain words, with the field to give it in.
// A token or a key stays in this page's memory: it is in no storage, and gone when the page is loaded again.

import { $, access, callApi, draw, enable, isEnabled, mayCall, say } from "./page.js";
import { on, reconnect, session } from "./session.js";

const REASONS = {
  token_expired: "its time is over",
  token_signature: "it is signed with another key",
  token_malformed: "it is no token",
  token_algorithm: "its kind of signature is not taken here",
  token_not_yet: "its time has not come yet",
};

let isChecking = false; // a key that the API is being asked about

export function startBanner() {
  on("state", () => draw(drawBanner));
  access.listeners.push(() => draw(drawBanner));
  $("ask-token").addEventListener("submit", (event) => {
    event.preventDefault();
    const token = $("token").value.trim();
    if (token) reconnect({ token, refused: "" });
  });
  $("ask-key").addEventListener("submit", (event) => {
    event.preventDefault();
    const key = $("key").value.trim();
    if (key && isEnabled($("use-key"))) tryKey(key);
  });
  drawBanner();
}

/** The field stays until the API has taken the key. */
async function tryKey(key) {
  Object.assign(access, { key, refused: "" });
  isChecking = true;
  drawBanner();
  try {
    await callApi("/v1/stats");
  } catch (error) {
    Object.assign(access, { key: "", refused: error.message });
  }
  isChecking = false;
  access.listeners.forEach((listener) => listener());
}

function drawBanner() {
  const { wants, refused, url, token } = session;
  const wantsToken = wants === "token";
  const wantsKey = access.isWanted && (isChecking || !mayCall());
  say($("token-error"), refused && !token ? `The last one was refused: ${REASONS[refused] ?? refused}.` : "");
  say($("key-error"), access.refused && `The last one was refused: ${access.refused}.`);
  enable($("use-key"), !isChecking);
  say($("address-where"), url);
  say($("address-origin"), location.origin);
  show($("ask-token"), wantsToken, $("token"));
  show($("ask-key"), wantsKey, $("key"));
  $("ask-address").hidden = wants !== "address";
  $("banner").hidden = !wantsToken && !wantsKey && wants !== "address";
}

/** Focus that was in a question which has been answered goes to the next one, or to what the answer was for. */
function show(form, isShown, field) {
  if (form.hidden === !isShown) return;
  const had = form.contains(document.activeElement);
  form.hidden = !isShown;
  if (isShown) return;
  field.value = "";
  if (had) (["ask-token", "ask-key"].map($).find((other) => !other.hidden)?.querySelector("input") ?? $("main")).focus();
}
