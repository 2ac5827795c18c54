'use strict';
// Entry point of the container, and all that has to be loaded before the port answers: it listens, answers the first
// health check, and then loads the IDE server into this same process. Until that is done, requests and websockets wait.
// If it cannot be loaded, the process ends, and so does the container.
const http = require('node:http');

const ide = '/opt/ide/node_modules/code-server/out/node/medforge.cjs';
const cache = '/opt/ide/cache';

const waiting = [];
let handle;

const server = http.createServer((request, response) => {
  if (handle) handle(request, response);
  else if (request.url === '/healthz') response.end('{"status":"starting"}');
  else waiting.push(() => handle(request, response));
});
// Longer than a proxy keeps an idle connection (Caddy: two minutes). Were it shorter, the proxy would now and then send a
// request into a connection that is being closed, and show the user a 502.
server.keepAliveTimeout = 180_000;
server.on('upgrade', hold);
server.listen(Number(process.env.PORT || 8080), process.env.CODE_SERVER_HOST || '0.0.0.0');

function hold(request, socket, head) {
  waiting.push(() => server.emit('upgrade', request, socket, head));
}

// Loading keeps this thread busy, so whoever waits for the port is answered first. Nobody may be waiting.
server.once('request', (_, response) => response.once('close', start));
const nobody = setTimeout(start, 50);

let started = false;
function start() {
  if (started) return;
  started = true;
  clearTimeout(nobody);
  // V8's compiled code is kept from the image build (see docs/explanation/ide-boot.md). The variable does the same for
  // the processes that the server forks: extension host, terminal host, file watcher, language servers.
  require('node:module').enableCompileCache(cache);
  process.env.NODE_COMPILE_CACHE = cache;
  require(ide).attach(server).then((handler) => {
    handle = handler;
    server.off('upgrade', hold);
    for (const resume of waiting.splice(0)) resume();
  }, (error) => {
    console.error(`cannot load the IDE: ${error.stack ?? error}`);
    process.reallyExit(1);
  });
}
