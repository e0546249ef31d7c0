// The departures board of `serve --demo`. The shapes of its messages are those of `src/demo/pushes.rs`.

import { $, WHOLE, draw, make, plural } from "./page.js";
import { join, leave, on, session } from "./session.js";

const BOARD_MAX = 12; // departures kept and shown

export function startDepartures() {
  $("departures").hidden = false;
  $("main").classList.add("demo");
  for (const code of AIRPORTS) {
    const chip = make("button", { type: "button", "aria-pressed": "false", title: CITIES.get(code) }, code);
    chip.addEventListener("click", () => (session.rooms.has(`airport:${code}`) ? leave : join)(`airport:${code}`));
    $("airports").append(chip);
  }
  on("push", arrived);
  on("rooms", () => draw(drawChips));
}

// The fourteen busiest origins of the data. Any other airport can be joined by its room, `airport:ANC`.
const AIRPORTS = ["DFW", "ORD", "ATL", "LAX", "PHX", "STL", "EWR", "LAS", "CLT", "MSP", "DTW", "IAH", "DEN", "PHL"];
export const FIRST_ROOMS = ["airport:ORD", "airport:ATL", "airport:LAX"];

const CITIES = new Map(`ABE Allentown|ABI Abilene|ABQ Albuquerque|ACT Waco|ADQ Kodiak|ALB Albany|AMA Amarillo|ANC Anchorage|APF Naples
|ATL Atlanta|AUS Austin|AVL Asheville|AVP Scranton|AZO Kalamazoo|BDL Hartford|BET Bethel|BFL Bakersfield|BGM Binghamton|BGR Bangor
|BHM Birmingham|BIL Billings|BIS Bismarck|BMI Bloomington|BNA Nashville|BOI Boise|BOS Boston|BPT Beaumont|BRO Brownsville|BRW Barrow
|BTR Baton Rouge|BTV Burlington|BUF Buffalo|BUR Burbank|BWI Baltimore|BZN Bozeman|CAE Columbia|CAK Akron|CDV Cordova|CHA Chattanooga
|CHS Charleston|CID Cedar Rapids|CLE Cleveland|CLL College Station|CLT Charlotte|CMH Columbus|CMI Champaign|COS Colorado Springs
|CRP Corpus Christi|CRW Charleston|CVG Cincinnati|DAB Daytona Beach|DAL Dallas Love|DAY Dayton|DBQ Dubuque|DCA Washington National
|DEN Denver|DFW Dallas|DLH Duluth|DRO Durango|DSM Des Moines|DTW Detroit|DUT Dutch Harbor|EGE Eagle|ELM Elmira|ELP El Paso|ERI Erie
|EUG Eugene|EVV Evansville|EWR Newark|EYW Key West|FAI Fairbanks|FAR Fargo|FAT Fresno|FAY Fayetteville|FCA Kalispell
|FLL Fort Lauderdale|FNT Flint|FSD Sioux Falls|FSM Fort Smith|FWA Fort Wayne|GEG Spokane|GGG Longview|GPT Gulfport|GRB Green Bay
|GRR Grand Rapids|GSO Greensboro|GSP Greenville|GTF Great Falls|GUC Gunnison|HDN Hayden|HLN Helena|HNL Honolulu|HOU Houston Hobby
|HPN White Plains|HRL Harlingen|HSV Huntsville|IAD Washington Dulles|IAH Houston|ICT Wichita|ILE Killeen|ILM Wilmington
|IND Indianapolis|ISP Islip|ITH Ithaca|ITO Hilo|JAC Jackson Hole|JAN Jackson|JAX Jacksonville|JFK New York Kennedy|JNU Juneau|KOA Kona
|KTN Ketchikan|LAN Lansing|LAS Las Vegas|LAW Lawton|LAX Los Angeles|LBB Lubbock|LEX Lexington|LFT Lafayette|LGA New York LaGuardia
|LGB Long Beach|LIH Lihue|LIT Little Rock|LNK Lincoln|LRD Laredo|LSE La Crosse|MAF Midland|MBS Saginaw|MCI Kansas City|MCO Orlando
|MDT Harrisburg|MDW Chicago Midway|MEM Memphis|MFE McAllen|MFR Medford|MHT Manchester|MIA Miami|MKE Milwaukee|MLB Melbourne|MLI Moline
|MLU Monroe|MOB Mobile|MOT Minot|MQT Marquette|MRY Monterey|MSN Madison|MSO Missoula|MSP Minneapolis|MSY New Orleans|MTJ Montrose
|MYR Myrtle Beach|OAK Oakland|OGG Kahului|OKC Oklahoma City|OMA Omaha|OME Nome|ONT Ontario|ORD Chicago O’Hare|ORF Norfolk|ORH Worcester
|OTZ Kotzebue|PBI West Palm Beach|PDX Portland|PHL Philadelphia|PHX Phoenix|PIA Peoria|PIT Pittsburgh|PNS Pensacola|PSC Pasco
|PSP Palm Springs|PVD Providence|PWM Portland|RAP Rapid City|RDU Raleigh–Durham|RIC Richmond|RNO Reno|ROA Roanoke|ROC Rochester
|RST Rochester|RSW Fort Myers|SAN San Diego|SAT San Antonio|SAV Savannah|SBA Santa Barbara|SBN South Bend|SBP San Luis Obispo
|SDF Louisville|SEA Seattle|SFO San Francisco|SGF Springfield|SHV Shreveport|SJC San Jose|SJT San Angelo|SJU San Juan
|SLC Salt Lake City|SMF Sacramento|SNA Santa Ana|SPS Wichita Falls|SRQ Sarasota|STL St. Louis|STT St. Thomas|STX St. Croix|SWF Newburgh
|SYR Syracuse|TLH Tallahassee|TOL Toledo|TPA Tampa|TRI Tri-Cities|TUL Tulsa|TUS Tucson|TVC Traverse City|TXK Texarkana|TYR Tyler
|TYS Knoxville|VPS Fort Walton Beach|WRG Wrangell|XNA Northwest Arkansas|YAK Yakutat`.replaceAll("\n", "").split("|")
  .map((line) => [line.slice(0, 3), line.slice(4)]));

const board = { fresh: [], clock: null };

/** Takes what is the demo's from what arrives. */
function arrived(_kind, { items }) {
  for (const item of items) {
    if (typeof item?.departs === "string") board.fresh.push(item);
    else if (typeof item?.clock === "string") clockArrived(item);
    else if (typeof item?.note === "string") $("replay-text").textContent = item.note;
  }
  if (board.fresh.length > BOARD_MAX) board.fresh.splice(0, board.fresh.length - BOARD_MAX);
  if (board.fresh.length) draw(drawBoard);
}

function clockArrived(item) {
  board.clock = { ...item, minute: Date.parse(`${item.clock}Z`) / 60_000, at: performance.now() };
  draw(drawClock);
}

/** On time is under 15 minutes late, as the Bureau of Transportation Statistics counts. */
function status(delay) {
  if (delay >= 0 && delay < 15) return { look: "on-time", words: ["On time"] };
  const minutes = make("span", { class: "wide" }, " min");
  if (delay < 0) return { look: "early", words: [`${-delay}`, minutes, " early"] };
  return { look: delay < 45 ? "late" : "very-late", words: [`${delay}`, minutes, " late"] };
}

function flightRow({ departs, delay, distance, origin, destination }) {
  const { look, words } = status(delay);
  const city = CITIES.get(destination);
  return make("tr", {}, make("td", {}, String(departs).slice(11, 16)), make("td", {}, String(origin)),
    make("td", {}, ...(city ? [`${city} `, make("small", {}, destination)] : [String(destination)])),
    make("td", { "data-delay": look }, ...words), make("td", { class: "num" }, WHOLE.format(distance)));
}

function drawBoard() {
  const body = $("flights");
  body.prepend(...board.fresh.splice(0).reverse().map(flightRow));
  while (body.rows.length > BOARD_MAX) body.lastElementChild.remove();
  $("flights-empty").hidden = body.rows.length > 0;
}

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const DAY = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });

/** Between two clock messages the clock runs on by itself, at most for as long as one should take to come. */
function drawClock() {
  if (!board.clock) return;
  const { minute, at, speed, departed, of } = board.clock;
  const since = calm.matches ? 0 : Math.min((performance.now() - at) / 1000, 1) * speed;
  const now = new Date(Math.floor(minute + since) * 60_000);
  $("clock").textContent = now.toISOString().slice(11, 16);
  $("clock").dateTime = now.toISOString().slice(0, 16);
  $("clock-date").textContent = DAY.format(now);
  if (board.drawn !== board.clock) {
    $("replay").max = of;
    $("replay").value = departed;
    $("replay-text").textContent = `${WHOLE.format(departed)} of ${WHOLE.format(of)} flights departed, ${
      plural(speed, "simulated minute")} a second`;
    board.drawn = board.clock;
  }
  if (!calm.matches && performance.now() - at < 1_000) draw(drawClock);
}

function drawChips() {
  for (const chip of $("airports").children) chip.setAttribute("aria-pressed", session.rooms.has(`airport:${chip.textContent}`));
}
