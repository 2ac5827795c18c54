'use strict';
// The IDE server: code-server's own modules, put together for a container that serves one user behind a proxy that has
// already decided who may enter. It replaces code-server's entry.js, which would parse its configuration, start a second
// Node process and hold a log file open before anyone can connect.
//
// Bundled at image build into code-server/out/node/medforge.cjs, next to the modules it requires. It owns the order of
// loading, the folders under HOME, precompressed static files, and the way to stop.
const fs = require('node:fs');
const path = require('node:path');
const compression = require('compression');
const express = require('express');
const { logger } = require('@coder/logger');

// code-server derives these from XDG variables when its modules load. What it keeps there (heartbeat, sockets, logs) is
// of no use after this container, so it stays off the workspace.
const scratch = '/tmp/medforge-ide';
const borrowed = { XDG_DATA_HOME: scratch, XDG_RUNTIME_DIR: scratch };
Object.assign(process.env, borrowed);
const cli = require('./cli');
const { commit, version } = require('./constants');
const routes = require('./routes');
const vscode = require('./routes/vscode');
const vscodeSocket = require('./vscodeSocket');
const wsRouter = require('./wsRouter');
for (const name of Object.keys(borrowed)) delete process.env[name];

const workspace = '/workspace';
const home = process.env.HOME;
const userData = path.join(home, '.local/share/code-server');
// How long processes that handle SIGTERM may take to finish; Docker kills after ten seconds.
const stopGrace = 5000;

// The image keeps nothing of HOME, which lies on the workspace: a new one gets the folders that the server expects and
// the shell's usual files. Called again for every page, because a workspace may be mounted after this process started;
// until then the mount point belongs to root, and nothing is written. Returns whether there is a workspace.
function prepareHome() {
  try {
    fs.accessSync(workspace, fs.constants.W_OK);
    if (fs.existsSync(path.join(userData, 'User'))) return true;
    for (const folder of ['User/globalStorage', 'User/workspaceStorage', 'Machine', 'extensions']) {
      fs.mkdirSync(path.join(userData, folder), { recursive: true });
    }
    for (const file of fs.readdirSync('/etc/skel')) {
      fs.cpSync(path.join('/etc/skel', file), path.join(home, file), { recursive: true, force: false });
    }
    return true;
  } catch (error) {
    logger.warn(`cannot write to ${workspace}: ${error.message}; it has to be mounted, belong to uid ${process.getuid()} and have space left`);
    return false;
  }
}

// Static files compressed at build time: path below /<quality>-<commit>/static/ -> { type, size }. Only paths in this
// table are answered here; code-server serves the rest.
const compressed = new Map(Object.entries(JSON.parse(fs.readFileSync('/opt/ide/static.json'))));
const staticPath = new RegExp(`^/[a-z]+-${commit}/static/([^?]+)`);
const vscodeRoot = path.resolve(__dirname, '../../lib/vscode');

function serveCompressed(request, response) {
  const file = staticPath.exec(request.url)?.[1];
  const entry = file && compressed.get(file);
  if (!entry || !/\bbr\b/.test(request.headers['accept-encoding'] ?? '') || !/^(GET|HEAD)$/.test(request.method)) return false;
  response.writeHead(200, {
    'Content-Type': entry.type,
    'Content-Encoding': 'br',
    'Content-Length': entry.size,
    // The commit is part of the path, so a path never changes its content.
    'Cache-Control': 'public, max-age=31536000, immutable',
    Vary: 'Accept-Encoding',
  });
  if (request.method === 'HEAD') response.end();
  else fs.createReadStream(path.join(vscodeRoot, file + '.br')).on('error', () => response.destroy()).pipe(response);
  return true;
}

// Takes over a server that listens already; resolves with its request handler when requests can be answered.
exports.attach = async (server) => {
  fs.mkdirSync(path.join(scratch, 'code-server'), { recursive: true, mode: 0o700 });
  const argv = ['--auth', 'none', '--app-name', 'MedForge', '--user-data-dir', userData,
    '--session-socket', path.join(scratch, 'session.sock'), '--vscode-option', `logsPath=${scratch}/logs`,
    // The container's environment is the user's: no login shell has to be run to find it out, before every extension host.
    '--vscode-option', 'force-disable-user-env',
    '--disable-telemetry', '--disable-update-check', '--disable-workspace-trust', '--disable-getting-started-override',
    ...process.argv.slice(2), workspace];
  // No configuration file: the image and these options are the configuration.
  const args = await cli.setDefaults(cli.parse(argv), { config: '/dev/null' });
  // Without this one, Code's module takes itself for the main program and starts a second server when it is loaded.
  process.env.CODE_SERVER_PARENT_PID = String(process.pid);
  // The `code` command of the terminal runs this binary.
  process.env.NODE_EXEC_PATH = process.execPath;
  process.chdir('/');

  const router = express();
  router.use(compression());
  const sockets = express();
  const sessions = await vscodeSocket.makeEditorSessionManagerServer(args['session-socket'], new vscodeSocket.EditorSessionManager());
  await routes.register({ router, wsRouter: sockets, server, editorSessionManagerServer: sessions }, args);
  wsRouter.handleUpgrade(sockets, server);
  for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => stop(server));

  // The workbench's half of the server is the larger one; without this, the first page would have to load it.
  setImmediate(async () => {
    if (prepareHome()) {
      await vscode.ensureVSCodeLoaded({ args }, undefined, (error) => error && logger.error(`cannot load the workbench: ${error.stack}`));
    } else {
      await (await import(path.join(vscodeRoot, 'out/server-main.js'))).loadCodeWithNls();
    }
    delete process.env.CODE_SERVER_PARENT_PID;
    logger.info(`code-server ${version} is ready after ${Math.round(performance.now())} ms`);
  });
  return (request, response) => {
    if (request.url === '/' || request.url.startsWith('/?')) prepareHome();
    if (!serveCompressed(request, response)) router(request, response);
  };
};

// First the user's programs are asked to end, and given time, since one may be saving its work. Then the terminals hang
// up, which makes shells write their history. Doing both at once would hang up on the programs. Then this process leaves,
// and with it the container. The IDE's own helpers keep nothing that is not written yet.
async function stop(server) {
  const began = performance.now();
  server.close();
  const programs = () => processes().filter((one) => !one.leader);
  tell(programs(), 'SIGTERM');
  await until(() => programs().length === 0, stopGrace);
  tell(processes(), 'SIGHUP');
  await until(() => processes().length === 0, 500);
  logger.info(`stopped after ${Math.round(performance.now() - began)} ms`);
  exit(0);
}

// The user's processes: a session leader is the shell of a terminal.
function processes() {
  const found = [];
  for (const pid of fs.readdirSync('/proc')) {
    if (!/^\d+$/.test(pid) || +pid === 1 || +pid === process.pid) continue;
    try {
      const [state, , , session] = fs.readFileSync(`/proc/${pid}/stat`, 'latin1').replace(/^.*\) /s, '').split(' ');
      const ours = fs.readlinkSync(`/proc/${pid}/exe`) === process.execPath;
      if (!ours && state !== 'Z' && state !== 'X') found.push({ pid: +pid, leader: session === pid });
    } catch { /* it has ended meanwhile, or is another user's */ }
  }
  return found;
}

function tell(list, signal) {
  for (const { pid } of list) {
    try { process.kill(pid, signal); } catch { /* it has ended meanwhile */ }
  }
}

async function until(condition, limit) {
  const end = performance.now() + limit;
  while (!condition() && performance.now() < end) await new Promise((resolve) => setTimeout(resolve, 10));
}

// Code calls process.exit() where a desktop program may; here it would take the user's terminals along.
const exit = process.exit.bind(process);
process.exit = (code) => logger.warn(`ignored process.exit(${code ?? ''})`);
process.on('uncaughtException', (error) => logger.error(`uncaught: ${error.stack ?? error}`));
