// People on the page: what a new user would try, step by step. Run by ../page.sh.

import { readFileSync } from "node:fs";
import { launch, run } from "./browser.mjs";

const { browser: path, profile, plain: url, tokens: guarded, token } = JSON.parse(readFileSync(process.argv[2]));
const PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";

// The smallest agent: a client of the platform "agent" that answers COMMAND with REPLY under the same id.
const AGENT = `(async () => {
  const { gateway_url } = await (await fetch("/console/config.json")).json();
  globalThis.agent = new WebSocket(gateway_url + "?user=robot&platform=agent");
  agent.onmessage = ({ data }) => {
    const { type, id, data: { command } = {} } = JSON.parse(data);
    if (type === "COMMAND") agent.send(JSON.stringify({ type: "REPLY", id, data: command === "info" ? { data: { os: "any" } } : { error: "no" } }));
  };
})()`;

/** Lines of the chat with this text in them, as an expression in the page. */
const lines = (text) => `[...document.querySelectorAll("#chat-log li")].filter((li) => li.innerText.includes(${JSON.stringify(text)}))`;
const says = (page, to, text) => page.submit("chat", { "chat-to": to, "chat-text": text });

async function named(browser, name) {
  const page = await browser.open(name, url);
  await page.until("connected at once", `document.getElementById("state").dataset.state === "open"`);
  await page.submit("viewer", {});
  await page.until("disconnected", `document.getElementById("state").dataset.state === "idle"`);
  await page.submit("viewer", { user: name });
  await page.until(`connected as ${name}`, `document.getElementById("state-text").textContent === "Connected as ${name}"`);
  await page.submit("join", { "join-room": "tea" });
  await page.until("in the room", `document.getElementById("rooms").innerText.includes("online")`);
  return page;
}

const steps = {
  async "what is said in a room is one line on each page, with the speaker's name"({ alice, bob }) {
    await says(alice, "tea", "shall we?");
    await bob.until("alice's line", `${lines("shall we?")}.length === 1`);
    await bob.until("her name", `${lines("shall we?")}[0].querySelector("button").textContent === "alice"`);
    await alice.until("her own line, sent", `${lines("shall we?")}.length === 1 && !${lines("sending")}.length`);
  },
  async "a click on a name writes to that person alone"({ alice, bob, carol }) {
    await bob.value(`${lines("shall we?")}[0].querySelector("button").click()`);
    await bob.until("addressed", `document.getElementById("chat-to").value === "@alice"`);
    await says(bob, "@alice", "just between us");
    await alice.until("bob's line", `${lines("just between us")}[0].innerText.includes("to you")`);
    await says(alice, "tea", "after it");
    await carol.until("what came after it", `${lines("after it")}.length === 1`);
    if (await carol.value(`${lines("between us")}.length`)) throw new Error("carol got what was for alice");
  },
  async "somebody who is not there is offline, and can be tried again"({ alice }) {
    await says(alice, "@nobody", "anyone?");
    await alice.until("offline, with a button", `${lines("anyone?")}[0].querySelector("span button")?.textContent === "Retry"`);
  },
  async "an image is shown, and asks its host without telling from where"({ alice, bob }) {
    await says(alice, "tea", PIXEL);
    await bob.until("the image", `document.querySelector("#chat-log img")?.naturalWidth === 1`);
    if ((await bob.value(`document.querySelector("#chat-log img").referrerPolicy`)) !== "no-referrer") throw new Error("it tells");
  },
  async "markup and other addresses stay text"({ alice, bob }) {
    const evil = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`;
    await says(alice, "tea", evil);
    await bob.until("the text", `${lines("<script>")}.length === 1`);
    const script = { to: { room: "tea" }, message: { from: "mallory", id: "1", time_ms: 1, data: { kind: "image", url: "javascript:alert(1)" } } };
    await alice.value(`fetch("/v1/push", { method: "POST", headers: { "content-type": "application/json" }, body: ${JSON.stringify(JSON.stringify(script))} })`);
    await bob.until("the address as text", `${lines("javascript:")}.length === 1`);
    const images = await bob.value(`document.querySelectorAll("#chat-log img").length`);
    if (images !== 1 || (await bob.value("document.title")).includes("owned")) throw new Error(`${images} images`);
  },
  async "a closed page is seen to leave"({ alice, carol }) {
    await carol.value(`document.getElementById("connect").click()`);
    await alice.until("who left", `${lines("1 left; 2 online")}.length === 1`);
    await alice.until("how many are there", `document.getElementById("chat-presence").textContent === "2 online in tea"`);
  },
  async "an agent is listed, and its reply to info is shown"({ alice, carol }) {
    await carol.value(AGENT);
    await alice.until("the agent", `document.getElementById("agents").innerText.includes("robot")`);
    await alice.value(`document.querySelector("#agents button").click()`);
    await alice.until("what it replied", `document.querySelector("#agents pre").textContent.includes('"os": "any"')`);
    await carol.value("agent.close()");
    await alice.until("no agent any more", `document.getElementById("agents-panel").hidden`);
  },
  async "a gateway that wants tokens is given one, and allows what it says"({ dora }) {
    await dora.until("it says so", `document.getElementById("banner").innerText.includes("This gateway wants a token")`);
    await dora.submit("ask-token", { token: token.slice(0, -9) + "AAAA" + token.slice(-5) });
    await dora.until("it says why not", `document.getElementById("token-error").textContent.includes("signed with another key")`);
    await dora.submit("ask-token", { token });
    await dora.until("who the token says", `document.getElementById("state-text").textContent === "Connected as alice"`);
    await dora.until("no question is left", `document.getElementById("banner").hidden`);
    await dora.submit("join", { "join-room": "tea" });
    await dora.until("in the room", `document.getElementById("rooms").innerText.includes("online")`);
    await says(dora, "tea", "with a token");
    await dora.until("its line, sent", `${lines("with a token")}.length === 1 && !${lines("sending")}.length`);
    await dora.submit("join", { "join-room": "coffee" });
    await dora.until("refused", `document.getElementById("join-error").textContent.startsWith("coffee:")`);
    await says(dora, "teapots", "may I?");
    await dora.until("not to speak there", `${lines("may I?")}[0].querySelector("span").textContent.length > 5`);
    if (await dora.value(`${lines("may I?")}[0].querySelector("span button") !== null`)) throw new Error("a retry is offered");
    const name = await dora.value(`${lines("may I?")}[0].querySelector("strong").textContent`);
    if (name !== "alice") throw new Error(`she calls herself ${name}`);
  },
};

const browser = await launch(path, profile);
try {
  const people = {};
  for (const name of ["alice", "bob", "carol"]) people[name] = await named(browser, name);
  people.dora = await browser.open("dora", guarded);
  await run("chat", steps, people);
} finally {
  await browser.end();
}
