// Where the gateway is, seen from where this page is, as a pure function: behind a proxy the gateway's own address is not the one to dial.
// Knows no page and no socket.

const LOOPBACK = /^(localhost|.*\.localhost|127(\.\d+){3}|\[::1\])$/;
const EVERYWHERE = ["0.0.0.0", "[::]"]; // addresses to listen on, at which nobody can be dialled

/**
 * The address to dial. `ws_url` is the operator's word and counts most; `gateway_url` is where the gateway in the server's own
 * process listens, if there is one. `page` is like `location`.
 */
export function gatewayUrl({ ws_url, gateway_url }, page) {
  if (ws_url) return ws_url;
  const isSecure = page.protocol === "https:";
  const here = `${isSecure ? "wss" : "ws"}://${page.host}/ws`;
  // A page that came by https may not dial ws:, and came through what ended its TLS: so will the WebSocket.
  if (!gateway_url) return isSecure || !page.port ? here : `ws://${page.hostname}:8000/ws`;
  const gateway = new URL(gateway_url);
  if (isSecure && gateway.protocol === "ws:") return here;
  if (EVERYWHERE.includes(gateway.hostname)) gateway.hostname = page.hostname;
  // The gateway hears its own machine alone, and this page came from another.
  else if (LOOPBACK.test(gateway.hostname) && !LOOPBACK.test(page.hostname)) return here;
  return gateway.href;
}

/** An address as a person types it, or null: `push.example.com`, `localhost:8000` and the like are completed. */
export function asWebSocketUrl(text, page) {
  if (!text || /\s/.test(text)) return null;
  const scheme = page.protocol === "https:" ? "wss" : "ws";
  const whole = /^[a-z]+:\/\//i.test(text) ? text.replace(/^http(s?):/i, "ws$1:") : `${scheme}://${text}`;
  try {
    const url = new URL(whole);
    if (!/^wss?:$/.test(url.protocol) || !url.hostname) return null;
    if (url.pathname === "/") url.pathname = "/ws";
    url.hash = "";
    return url.href;
  } catch {
    return null;
  }
}
