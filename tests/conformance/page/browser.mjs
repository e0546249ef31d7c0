// A Chromium without a window, driven over its DevTools protocol through a pipe: no packages, no port.
// Knows nothing of Tidegate; what is done with the pages is in the files beside it.

import { spawn } from "node:child_process";

const PATIENCE_MS = 10_000;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Starts the browser; `end()` ends it. */
export async function launch(path, profile) {
  const flags = ["--headless=new", "--remote-debugging-pipe", `--user-data-dir=${profile}`, "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic", "--disable-gpu",
    "--disable-dev-shm-usage", "--no-sandbox", "--hide-scrollbars", "--ignore-certificate-errors"];
  const child = spawn(path, flags, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
  const [to, from] = [child.stdio[3], child.stdio[4]];
  const waiting = new Map();
  const sessions = new Map(); // session → what it calls with events
  let next = 1;
  let rest = "";
  from.setEncoding("utf8");
  from.on("data", (text) => {
    const parts = (rest + text).split("\0");
    rest = parts.pop();
    for (const part of parts) {
      const { id, result, error, method, params, sessionId } = JSON.parse(part);
      if (id === undefined) sessions.get(sessionId)?.(method, params);
      else if (error) waiting.get(id).reject(new Error(`${waiting.get(id).method}: ${error.message}`));
      else waiting.get(id).resolve(result);
      waiting.delete(id);
    }
  });
  const call = (method, params = {}, sessionId) => new Promise((resolve, reject) => {
    waiting.set(next, { resolve, reject, method });
    to.write(`${JSON.stringify({ id: next++, method, params, sessionId })}\0`);
  });
  const end = async () => {
    await Promise.race([call("Browser.close").catch(() => {}), sleep(2_000)]);
    child.kill();
  };
  return { end, open: (name, url, look) => open(call, sessions, name, url, look) };
}

const KEYS = { Tab: 9, Enter: 13, Space: 32 };

/** A page of its own person: its own storage, as if in another browser. */
async function open(call, sessions, name, url, { width = 1280, height = 1100, scheme = "light", before = "" } = {}) {
  const { browserContextId } = await call("Target.createBrowserContext");
  const { targetId } = await call("Target.createTarget", { url: "about:blank", browserContextId });
  const { sessionId } = await call("Target.attachToTarget", { targetId, flatten: true });
  const faults = []; // exceptions, violations of the policy, failed loads
  sessions.set(sessionId, (method, params) => {
    if (method === "Runtime.exceptionThrown") faults.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    if (method === "Log.entryAdded" && params.entry.level === "error") faults.push(`${params.entry.text} ${params.entry.url ?? ""}`);
  });
  const on = (method, params) => call(method, params, sessionId);
  for (const domain of ["Runtime", "Log", "Page"]) await on(`${domain}.enable`);
  const size = (to) => on("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false, ...to });
  await size({});
  await on("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme },
    { name: "prefers-reduced-motion", value: "reduce" }] });
  if (before) await on("Page.addScriptToEvaluateOnNewDocument", { source: before });
  await on("Page.navigate", { url });
  /** The value of an expression in the page. */
  const value = async (expression) => {
    const { result, exceptionDetails } = await on("Runtime.evaluate", { expression, returnByValue: true, awaitPromise: true });
    if (exceptionDetails) throw new Error(`${name}: ${expression}: ${exceptionDetails.exception?.description}`);
    return result.value;
  };
  /** Waits until an expression is true in the page. */
  const until = async (what, expression) => {
    for (const end = Date.now() + PATIENCE_MS; Date.now() < end; await sleep(50)) {
      if (await value(`Boolean(${expression})`).catch(() => false)) return;
    }
    throw new Error(`${name}: not within ${PATIENCE_MS / 1000} s: ${what}; the page says: ${
      await value("document.querySelector('main').innerText.replace(/\\s+/g, ' ').slice(0, 800)")}`);
  };
  /** Fills inputs by id and submits their form, as typing and Enter would. */
  const submit = async (form, fields) => {
    for (const [id, text] of Object.entries(fields)) {
      await value(`{ const i = document.getElementById(${JSON.stringify(id)}); i.value = ${JSON.stringify(text)};
        i.dispatchEvent(new Event("input", { bubbles: true })); }`);
    }
    await value(`document.getElementById(${JSON.stringify(form)}).requestSubmit()`);
  };
  /** Types text where the focus is, or presses one key. */
  const type = (text) => on("Input.insertText", { text });
  const press = async (key) => {
    const text = { Enter: "\r", Space: " " }[key];
    const named = { key: key === "Space" ? " " : key, code: key, windowsVirtualKeyCode: KEYS[key] };
    await on("Input.dispatchKeyEvent", { type: "keyDown", ...named, text });
    await on("Input.dispatchKeyEvent", { type: "keyUp", ...named });
  };
  /** The whole page, however long. */
  const picture = async () => {
    const { cssContentSize } = await on("Page.getLayoutMetrics");
    await size({ height: Math.min(Math.ceil(cssContentSize.height), 6_000) });
    const { data } = await on("Page.captureScreenshot", { format: "png" });
    await size({});
    return Buffer.from(data, "base64");
  };
  const close = () => call("Target.closeTarget", { targetId });
  return { name, value, until, submit, type, press, picture, close, faults };
}

/** Runs steps by name, one after the other; what a page has complained of in the meantime is a failure too. */
export async function run(part, steps, pages) {
  let failed = 0;
  const fail = (text) => {
    failed += 1;
    console.log(`FAIL  ${part}: ${text}`);
  };
  for (const [name, step] of Object.entries(steps)) {
    try {
      await step(pages);
      console.log(`ok    ${part}: ${name}`);
    } catch (error) {
      fail(`${name}\n      ${error.message}`);
    }
  }
  for (const { name, faults } of Object.values(pages)) faults.forEach((fault) => fail(`${name}'s page: ${fault}`));
  if (failed) process.exitCode = 1;
}
