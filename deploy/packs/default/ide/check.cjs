'use strict';
// Runs at image build, as the user of the image: starts the server as the container will and talks to it as a browser
// does. A page, a static file or a connection that fails, fails the build. On the way every process leaves V8's compiled
// code of what it ran in the compile cache, which is why the extension host and the terminal host are started too.
const assert = require('node:assert');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');

const home = fs.mkdtempSync('/tmp/check-');
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function freePort() {
  const probe = net.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => probe.once('listening', resolve));
  const { port } = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

async function eventually(attempt) {
  for (let tries = 0; ; tries++) {
    try { return await attempt(); } catch (error) { if (tries === 200) throw error; }
    await sleep(25);
  }
}

// Code's remote protocol: messages of a 13-byte header (type, id, acknowledged id, length) and JSON, in a websocket.
const [regular, control] = [1, 2];
function frame(type, value) {
  const body = Buffer.from(JSON.stringify(value));
  const header = Buffer.alloc(13);
  header.writeUInt8(type, 0);
  header.writeUInt32BE(body.length, 9);
  return Buffer.concat([header, body]);
}

function* messages(bytes) {
  for (let at = 0; at + 13 <= bytes.length; ) {
    const length = bytes.readUInt32BE(at + 9);
    yield { type: bytes[at], body: bytes.subarray(at + 13, at + 13 + length) };
    at += 13 + length;
  }
}

// Opens one of the connections a browser opens (1: management, 2: extension host), and waits until `enough` accepts what
// the server says.
async function connect(port, commit, kind, args, enough) {
  const token = crypto.randomUUID();
  const socket = new WebSocket(`ws://127.0.0.1:${port}/stable-${commit}?reconnectionToken=${token}&reconnection=false&skipWebSocketFrames=false`);
  socket.binaryType = 'arraybuffer';
  return new Promise((resolve, reject) => {
    setTimeout(reject, 10000, new Error(`connection of kind ${kind}: no answer`)).unref();
    socket.onerror = (event) => reject(new Error(`connection of kind ${kind}: ${event.message}`));
    socket.onopen = () => socket.send(frame(control, { type: 'auth', auth: '00000000000000000000', data: '' }));
    socket.onmessage = ({ data }) => {
      for (const { type, body } of messages(Buffer.from(data))) {
        const said = type === control ? JSON.parse(body) : {};
        if (said.type === 'error') reject(new Error(`connection of kind ${kind}: ${said.reason}`));
        if (said.type === 'sign') {
          socket.send(frame(control, { type: 'connectionType', commit, signedData: said.data, desiredConnectionType: kind, args }));
        } else if (enough(type, said)) {
          resolve(socket);
        }
      }
    };
  });
}

// Pyright answers the first message of its protocol.
async function languageServer() {
  const server = spawn(process.execPath, ['--require', '/ide/flush.cjs', '/opt/ide/node_modules/pyright/langserver.index.js', '--stdio'], {
    env: { ...process.env, NODE_COMPILE_CACHE: '/opt/ide/cache' },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const message = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'initialize', params: { processId: null, rootUri: null, capabilities: {} } });
  server.stdin.write(`Content-Length: ${message.length}\r\n\r\n${message}`);
  await new Promise((resolve, reject) => {
    setTimeout(reject, 10000, new Error('the language server does not answer')).unref();
    let said = '';
    server.stdout.on('data', (data) => (said += data).includes('completionProvider') && resolve());
  });
}

async function main() {
  const port = await freePort();
  const server = spawn(process.execPath, ['--require', '/ide/flush.cjs', '/opt/ide/start.cjs'], {
    env: { ...process.env, HOME: home, PORT: String(port), CODE_SERVER_HOST: '127.0.0.1' },
    stdio: 'inherit',
  });
  const ended = new Promise((resolve) => server.once('exit', resolve));
  const get = async (path, headers) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { headers });
    assert.strictEqual(response.status, 200, path);
    return { type: response.headers.get('content-type'), encoding: response.headers.get('content-encoding'), text: await response.text() };
  };
  await eventually(() => get('/healthz'));

  const page = (await get('/?folder=/workspace')).text;
  const commit = /stable-([0-9a-f]{40})\/static/.exec(page)[1];
  assert.match(page, /configurationDefaults/);
  for (const [, file] of page.matchAll(/(?:src|href)="(stable-[^"]+|\.\/[^"]+)"/g)) await get('/' + file);
  const script = `/stable-${commit}/static/out/vs/code/browser/workbench/workbench.js`;
  const packed = await get(script, { 'accept-encoding': 'br' });
  const plain = await get(script, { 'accept-encoding': 'identity' });
  assert.strictEqual(packed.encoding, 'br');
  assert.ok(packed.text === plain.text && packed.type.split(';')[0] === plain.type.split(';')[0], 'the compressed file is the file');

  const management = await connect(port, commit, 1, undefined, (_, said) => said.type === 'ok');
  // The extension host itself says when it is ready to be given its work.
  const extensions = await connect(port, commit, 2, { language: 'en', env: {}, break: false, port: null }, (type) => type === regular);
  await languageServer();
  await sleep(3000);
  management.close();
  extensions.close();
  server.kill('SIGTERM');
  assert.strictEqual(await ended, 0, 'SIGTERM ends the server');
  fs.rmSync(home, { recursive: true, force: true });
  console.log('the server answers as it should');
  process.exit(0);
}

main().catch((error) => { console.error(error); process.exit(1); });
