// Every page at three widths, light and dark: what sticks out, what is cut, what is out of order, and what axe finds. Run by ../page.sh.

import { readFileSync, writeFileSync } from "node:fs";
import { launch } from "./browser.mjs";

const WIDTHS = { 390: 844, 820: 1180, 1280: 900 }; // telephone, tablet, laptop
const SCHEMES = ["light", "dark"];
const { browser: path, profile, axe, shots, ...stands } = JSON.parse(readFileSync(process.argv[2]));
const OPEN = `document.getElementById("state").dataset.state === "open"`;
const ASKED = `!document.getElementById("banner").hidden`;
const FIGURES = `document.querySelector(".figure .value").textContent.trim() !== "–"`;

// What is on each page once it has come to rest.
const PAGES = [
  { name: "demo", url: stands.demo, rest: [OPEN, FIGURES, `document.querySelectorAll("#flights tr").length > 3`] },
  { name: "plain", url: stands.plain, rest: [OPEN, FIGURES] },
  { name: "keys", url: stands.keys, rest: [OPEN, ASKED] },
  { name: "tokens", url: stands.tokens, rest: [ASKED, FIGURES] },
  { name: "lost", url: stands.lost, rest: [ASKED, FIGURES], refused: true },
  { name: "proxied", url: stands.proxied, rest: [OPEN, FIGURES, `document.querySelectorAll("#flights tr").length > 3`] },
].filter(({ url }) => url);

/** Runs in the page: what is wrong with how it lies there, in words. */
function inspect(width, hasDemo) {
  const wrong = [];
  const must = (isRight, what) => isRight || wrong.push(what);
  const shown = (selector) => [...document.querySelectorAll(selector)].filter((node) => node.checkVisibility());
  const top = (selector) => Math.round(document.querySelector(selector).getBoundingClientRect().top + scrollY);
  must(document.documentElement.scrollWidth <= innerWidth, `it scrolls sideways: ${document.documentElement.scrollWidth} px`);
  must(shown("h1").length === 1, `${shown("h1").length} h1`);
  must(shown("#departures").length === (hasDemo ? 1 : 0), "the departures belong to the demo, and to it alone");
  // Cells of tables may end in an ellipsis; what names things and what is pressed must be whole.
  for (const node of shown("h1, h2, h3, label, legend, button, .value, .note, th, dd, .segments span, .state, summary, .quiet, .empty")) {
    if (node.classList.contains("hidden") || node.closest("thead")?.getBoundingClientRect().height < 3) continue;
    must(node.scrollWidth <= node.clientWidth + 1 || getComputedStyle(node).display === "inline", `cut: ${node.className} "${node.textContent.trim()}"`);
  }
  for (const node of shown("input[placeholder]:placeholder-shown")) {
    must(node.scrollWidth <= node.clientWidth + 1, `cut: the placeholder "${node.placeholder}"`);
  }
  for (const node of shown("body *")) {
    const { left, right } = node.getBoundingClientRect();
    must(right <= innerWidth + 0.5 || left < -1_000 || node.closest("#stream, .hidden, pre, .skip"), `outside: ${node.tagName} ${node.id} ${node.className}`);
  }
  const figures = shown(".figure").map((node) => node.getBoundingClientRect());
  const rows = new Set(figures.map(({ top }) => Math.round(top))).size;
  const columns = new Set(figures.map(({ left }) => Math.round(left))).size;
  must(rows * columns === figures.length, `a hole in the figures: ${figures.length} in ${rows} rows of ${columns}`);
  if (width < 500) {
    must(rows === 1 && columns === 3, `${rows} rows of ${columns} figures`);
    const order = shown("main section").map((node) => [top(`[aria-labelledby="${node.getAttribute("aria-labelledby")}"]`), node.className.split(" ").at(-1)])
      .sort(([a], [b]) => a - b).map(([, name]) => name);
    must(order[hasDemo ? 1 : 0] === "push", `order of the panels: ${order.join(", ")}`);
  }
  return wrong;
}

const findings = `axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations.map(({ id, nodes }) =>
  "axe " + id + ": " + nodes.map(({ target }) => target.join(" ")).slice(0, 3).join(" | ")))`;

async function look(browser, { name, url, rest, refused }, width, scheme) {
  const page = await browser.open(`${name} ${width} ${scheme}`, url, { width: Number(width), height: WIDTHS[width], scheme });
  try {
    for (const expression of rest) await page.until("at rest", expression);
    const hasDemo = await page.value(`fetch("/console/config.json").then((answer) => answer.json()).then(({ demo }) => demo)`);
    const wrong = await page.value(`(${inspect})(${width}, ${hasDemo})`);
    if (axe) {
      await page.value(readFileSync(axe, "utf8") + "; true");
      wrong.push(...await page.value(findings));
    }
    if (shots) writeFileSync(`${shots}/${name}-${width}-${scheme}.png`, await page.picture());
    // A gateway that is not there is an error to the browser, too.
    return [...wrong, ...(refused ? [] : page.faults)];
  } catch (error) {
    return [error.message];
  } finally {
    await page.close();
  }
}

const browser = await launch(path, `${profile}-looks`);
try {
  for (const page of PAGES) {
    for (const width of Object.keys(WIDTHS)) {
      for (const scheme of SCHEMES) {
        const wrong = await look(browser, page, width, scheme);
        console.log(`${wrong.length ? "FAIL " : "ok   "} looks: ${page.name}, ${width} px, ${scheme}${axe ? "" : " (axe SKIPPED)"}`);
        for (const what of wrong) console.log(`      ${what}`);
        if (wrong.length) process.exitCode = 1;
      }
    }
  }
} finally {
  await browser.end();
}
