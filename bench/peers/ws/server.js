// A broadcast server on `ws`: the loop of its README, one process a core, publishing over HTTP through the primary.
// POST /pub with the message as body; 204 once every worker has been told.
// Environment: CLIENTS_PORT, PUBLISH_PORT, CORES, NODE_PATH (where `ws` is).
'use strict';
const cluster = require('node:cluster');
const http = require('node:http');

const { CLIENTS_PORT, PUBLISH_PORT, CORES } = process.env;

if (cluster.isPrimary) {
  for (let i = 0; i < Number(CORES); i++) cluster.fork();
  let listening = 0;
  cluster.on('listening', () => {
    // Publishers may come once every worker takes clients: this is how the harness knows that all are up.
    if (++listening === Number(CORES)) publisher().listen(Number(PUBLISH_PORT), '127.0.0.1');
  });
} else {
  const { WebSocket, WebSocketServer } = require('ws');
  const server = new WebSocketServer({
    host: '127.0.0.1', port: Number(CLIENTS_PORT), backlog: 65535, perMessageDeflate: false,
  });
  process.on('message', (message) => {
    // As in the README: one Buffer for all. A string would be encoded again for each client.
    const data = Buffer.from(message);
    for (const client of server.clients) {
      if (client.readyState === WebSocket.OPEN) client.send(data, { binary: false });
    }
  });
}

function publisher() {
  return http.createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8');
    request.on('data', (chunk) => { body += chunk; });
    request.on('end', () => {
      for (const worker of Object.values(cluster.workers)) worker.send(body);
      response.writeHead(204).end();
    });
  });
}
