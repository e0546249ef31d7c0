// A broadcast server on Socket.IO: one process a core, joined by its cluster adapter, WebSocket only.
// POST /pub with the message as body; it is emitted to everyone as event `m`. 204 once it was handed to a worker.
// Environment: CLIENTS_PORT, PUBLISH_PORT, CORES, NODE_PATH (where `socket.io` is).
'use strict';
const cluster = require('node:cluster');
const http = require('node:http');
const { createAdapter, setupPrimary } = require('@socket.io/cluster-adapter');

const { CLIENTS_PORT, PUBLISH_PORT, CORES } = process.env;

if (cluster.isPrimary) {
  setupPrimary();
  for (let i = 0; i < Number(CORES); i++) cluster.fork();
  let listening = 0;
  cluster.on('listening', () => {
    // Publishers may come once every worker takes clients: this is how the harness knows that all are up.
    if (++listening === Number(CORES)) publisher().listen(Number(PUBLISH_PORT), '127.0.0.1');
  });
} else {
  const { Server } = require('socket.io');
  const server = http.createServer();
  const io = new Server(server, {
    transports: ['websocket'], serveClient: false, perMessageDeflate: false, httpCompression: false,
    adapter: createAdapter(),
  });
  // Of each client's first request nothing is needed again.
  io.engine.on('connection', (socket) => { socket.request = null; });
  process.on('message', (message) => {
    if (typeof message.tide === 'string') io.emit('m', message.tide);
  });
  server.listen(Number(CLIENTS_PORT), '127.0.0.1', 65535);
}

function publisher() {
  return http.createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8');
    request.on('data', (chunk) => { body += chunk; });
    request.on('end', () => {
      // One worker emits; the adapter carries the event to the others.
      const [worker] = Object.values(cluster.workers);
      worker.send({ tide: body });
      response.writeHead(204).end();
    });
  });
}
