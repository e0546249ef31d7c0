// The console: one page that connects like any client, joins rooms, shows what arrives, pushes, and draws the live figures.
// Plain modules of the language, no framework, so that it works offline and under `default-src 'self'` (no inline script or style).
// This file only starts the panels; `ls` is the map: one file a panel, `session.js` the WebSocket, `page.js` what all of them use.

import { startAgents } from "./agents.js";
import { startBanner } from "./banner.js";
import { startChat } from "./chat.js";
import { startConnection } from "./connection.js";
import { FIRST_ROOMS, startDepartures } from "./departures.js";
import { startFigures } from "./figures.js";
import { $, config, loadConfig, parseOr, recall } from "./page.js";
import { startPush } from "./push.js";
import { startRooms } from "./rooms.js";
import { connect, join } from "./session.js";
import { startStream } from "./stream.js";

await loadConfig();
$("version").textContent = config.version;
startConnection(recall("user") ?? `guest-${Math.random().toString(16).slice(2, 6)}`);
startBanner();
startRooms();
startStream();
startChat();
startPush();
startFigures();
startAgents();
if (config.demo) startDepartures();
for (const room of parseOr(recall("rooms"), null) ?? (config.demo ? FIRST_ROOMS : [])) join(room);
connect();
