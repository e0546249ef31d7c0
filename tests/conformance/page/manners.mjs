// What the page says and does for whoever sits before it: words for what went wrong, questions at once, focus that stays. Run by ../page.sh.

import { readFileSync } from "node:fs";
import { launch, run } from "./browser.mjs";

const { browser: path, profile, ...stands } = JSON.parse(readFileSync(process.argv[2]));
const { key, token } = stands;
const says = (id, text) => `document.getElementById("${id}").innerText.includes(${JSON.stringify(text)})`;
const state = (text) => `document.getElementById("state-text").textContent === ${JSON.stringify(text)}`;
const focused = `document.activeElement?.id || document.activeElement?.getAttribute("aria-label") || document.activeElement?.tagName`;

async function expect(page, what, expression, wanted) {
  const got = await page.value(expression);
  if (got !== wanted) throw new Error(`${what}: expected ${JSON.stringify(wanted)}, got ${JSON.stringify(got)}`);
}

/** Sets the focus as the Tab key would, and says where it must be after `act`. */
async function keeps(page, id, act, after = id) {
  await page.value(`document.getElementById("${id}").focus()`);
  await act();
  await page.value(`new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))`);
  await expect(page, "the focus", focused, after);
}

/** Where the page would dial, as `place.js` works it out. */
const place = (settings, page) => `import("/console/place.js").then(({ gatewayUrl }) =>
  gatewayUrl(${JSON.stringify(settings)}, new URL(${JSON.stringify(page)})))`;

const steps = {
  async "a push to a room without members says who is missing"({ plain }) {
    await plain.value(`document.querySelector("input[value=room]").click()`);
    await plain.submit("push", { target: "lobby" });
    await plain.until("the words", says("receipt-text", "Accepted, but nobody is in lobby"));
    await expect(plain, "the room's name", `document.querySelector("#receipt-text em").textContent`, "lobby");
    await plain.value(`document.querySelector("input[value=user]").click()`);
    await plain.submit("push", { target: "nobody" });
    await plain.until("the words", says("receipt-text", "nobody is not connected"));
    await plain.value(`document.querySelector("input[value=all]").click()`);
    await plain.submit("push", {});
    await plain.until("the words", says("receipt-text", "Accepted for 1 connection"));
  },
  async "without the demo there is no departures panel"({ plain }) {
    await expect(plain, "the panel", `document.getElementById("departures").checkVisibility()`, false);
  },
  async "the focus stays on what was pressed"({ plain }) {
    await plain.value(`document.getElementById("receipt-text").textContent = ""`);
    await keeps(plain, "send", async () => {
      await plain.press("Enter");
      await plain.until("pushed", says("receipt-text", "Accepted"));
    });
    await keeps(plain, "connect", async () => {
      await plain.press("Enter");
      await plain.until("disconnected", state("Disconnected"));
      await plain.press("Enter");
      await plain.until("connected", `document.getElementById("state").dataset.state === "open"`);
    });
  },
  async "leaving a room by the keyboard leads to the next one, and from the last to the field"({ plain }) {
    for (const room of ["one", "two"]) await plain.submit("join", { "join-room": room });
    await plain.until("both", `document.querySelectorAll("#rooms li").length === 2`);
    await plain.value(`document.querySelector("#rooms button").focus()`);
    await plain.press("Enter");
    await plain.until("one is gone", `document.querySelectorAll("#rooms li").length === 1`);
    await expect(plain, "the focus", focused, "Leave two");
    await plain.press("Enter");
    await plain.until("none is left", `document.querySelectorAll("#rooms li").length === 0`);
    await expect(plain, "the focus", focused, "join-room");
  },
  async "a field that was emptied to be filled anew stays empty, and what is selected stays so"({ plain }) {
    await plain.submit("join", { "join-room": "three" });
    await plain.value(`document.querySelector("input[value=room]").click()`);
    await plain.until("suggested", `document.getElementById("target").value === "three"`);
    await keeps(plain, "target", async () => {
      await plain.value(`document.getElementById("target").value = ""`);
      await plain.value(`getSelection().selectAllChildren(document.getElementById("curl-title"))`);
      for (const text of ["Disconnected", `Connected as ${await plain.value(`document.getElementById("user").value`)}`]) {
        await plain.value(`document.getElementById("viewer").requestSubmit()`);
        await plain.until(text, state(text));
      }
      await plain.type("li");
    });
    await expect(plain, "the field", `document.getElementById("target").value`, "li");
    await plain.value(`getSelection().selectAllChildren(document.querySelector("#facts .code"))`);
    const selected = await plain.value(`String(getSelection())`);
    await plain.value(`document.getElementById("facts").dataset.was = document.querySelectorAll("#facts dd")[3].textContent`);
    await plain.until("another round trip", `document.querySelectorAll("#facts dd")[3].textContent !== document.getElementById("facts").dataset.was`);
    await expect(plain, "the selection", `String(getSelection())`, selected);
    if (selected.length < 10) throw new Error(`nothing was selected: ${selected}`);
  },
  async "a message that cannot be sent keeps the focus in the chat"({ plain }) {
    await plain.submit("chat", { "chat-to": "@nobody", "chat-text": "hello?" });
    await plain.until("a way to try again", `document.querySelector("#chat-log span button") !== null`);
    await plain.value(`document.querySelector("#chat-log span button").focus()`);
    await plain.press("Enter");
    await plain.until("the focus in the chat", `document.activeElement.id === "chat-text"`);
  },
  async "another user means another connection, by one press"({ plain }) {
    await plain.value(`document.getElementById("user").focus()`);
    await plain.value(`document.getElementById("user").select()`);
    await plain.type("zoe");
    await plain.until("the button", `document.getElementById("connect").textContent === "Reconnect"`);
    await plain.press("Enter");
    await plain.until("connected", state("Connected as zoe"));
    await expect(plain, "the focus", focused, "user");
  },
  async "an API that wants a key is given one, and nothing is asked of it before"({ keys }) {
    await keys.until("it says so", says("banner", "The push API wants a key"));
    await keys.submit("push", {});
    await keys.until("no push without", says("receipt-text", "Give the API key"));
    if (keys.faults.length) throw new Error(`it called without a key: ${keys.faults[0]}`);
    await keepsOut(keys);
    await keeps(keys, "key", async () => {
      await keys.value(`document.getElementById("key").select()`);
      await keys.type(key);
      await keys.press("Enter");
      await keys.until("no question is left", `document.getElementById("banner").hidden`);
    }, "main");
    await keys.until("figures", `document.querySelector(".figure .value").textContent.trim() === "1"`);
    await keys.submit("push", {});
    await keys.until("pushed", says("receipt-text", "Accepted for 1 connection"));
    await keys.until("how curl would", says("curl", "Bearer $KEY"));
  },
  async "a gateway that wants a token is not dialled without one"({ tokens }) {
    await tokens.until("it says so", says("banner", "This gateway wants a token"));
    await expect(tokens, "the state", `document.getElementById("state-text").textContent`, "Waiting for a token");
    await expect(tokens, "the field", `document.getElementById("token").checkVisibility()`, true);
    await keeps(tokens, "token", async () => {
      await tokens.type(token);
      await tokens.press("Enter");
      await tokens.until("who the token says", state("Connected as alice"));
      await tokens.until("no question is left", `document.getElementById("banner").hidden`);
    }, "main");
  },
  async "an address at which nobody answers can be written anew, and a gateway that waits is asked what for"({ lost }) {
    await lost.until("where nobody answers", says("banner", "No gateway answers at ws://127.0.0.1:1/ws"));
    lost.faults.length = 0; // the browser's own words for that
    await lost.submit("viewer", { gateway: stands.tokens_gateway.replace(/^ws:\/\/|\/ws$/g, "") });
    await lost.until("the whole address", `document.getElementById("gateway").value === ${JSON.stringify(stands.tokens_gateway)}`);
    await lost.until("it wants a token", says("banner", "This gateway wants a token"));
    lost.faults.length = 0;
    await lost.submit("ask-token", { token });
    await lost.until("connected", state("Connected as alice"));
    await lost.submit("viewer", { gateway: "not an address" });
    await expect(lost, "no address", `document.getElementById("gateway").getAttribute("aria-invalid")`, "true");
  },
  async "behind a proxy with TLS the page dials that proxy"({ proxied }) {
    if (!proxied) return console.log("      SKIPPED behind nginx");
    await proxied.until("connected", `document.getElementById("state").dataset.state === "open"`);
    await expect(proxied, "the address", `document.getElementById("gateway").value`, stands.proxied.replace("https:", "wss:") + "ws");
    await proxied.submit("push", {});
    await proxied.until("pushed", says("receipt-text", "Accepted for"));
  },
  async "the address to dial follows from where the page is"({ plain }) {
    const gateway_url = "ws://127.0.0.1:8000/ws";
    for (const [settings, page, url] of [
      [{ gateway_url }, "http://127.0.0.1:8001/", gateway_url],
      [{ gateway_url }, "https://push.example.com/", "wss://push.example.com/ws"],
      [{ gateway_url }, "http://push.example.com:8080/", "ws://push.example.com:8080/ws"],
      [{ gateway_url }, "https://127.0.0.1:8443/", "wss://127.0.0.1:8443/ws"],
      [{ gateway_url: "ws://0.0.0.0:9000/ws" }, "http://10.0.0.5:8001/", "ws://10.0.0.5:9000/ws"],
      [{ gateway_url: "wss://10.0.0.5:8000/ws" }, "https://10.0.0.5:8001/", "wss://10.0.0.5:8000/ws"],
      [{}, "http://10.0.0.7:8001/", "ws://10.0.0.7:8000/ws"],
      [{}, "https://push.example.com/", "wss://push.example.com/ws"],
      [{ ws_url: "wss://w.example.com/ws", gateway_url }, "http://127.0.0.1:8001/", "wss://w.example.com/ws"],
    ]) await expect(plain, page, place(settings, page), url);
  },
};

/** A key that is none is refused in words, in the same place. */
async function keepsOut(page) {
  await keeps(page, "key", async () => {
    await page.type("nonsense");
    await page.press("Enter");
    await page.until("it says why not", says("key-error", "The last one was refused"));
  });
  page.faults.length = 0; // the browser's own words for 401
}

const browser = await launch(path, `${profile}-manners`);
try {
  const pages = {};
  for (const name of ["plain", "keys", "tokens", "lost", "proxied"]) {
    if (stands[name]) pages[name] = await browser.open(name, stands[name]);
  }
  await pages.plain.until("connected", `document.getElementById("state").dataset.state === "open"`);
  await run("manners", steps, pages);
} finally {
  await browser.end();
}
