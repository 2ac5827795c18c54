'use strict';
// Runs at image build, after npm: turns the installed code-server into what the container starts.
//   bundle     start.cjs, and server.cjs with the code-server modules it requires as one file
//   python     the extension in ide/python
//   defaults   settings, written into the page that loads the workbench
//   prune      what this image does not use
//   compress   the files a browser loads
const fs = require('node:fs');
const path = require('node:path');
const zlib = require('node:zlib');
const esbuild = require('esbuild');

const codeServer = '/opt/ide/node_modules/code-server';
const vscode = path.join(codeServer, 'lib/vscode');

function bundle() {
  const out = path.join(codeServer, 'out/node');
  fs.copyFileSync('/ide/server.cjs', path.join(out, 'medforge.source.cjs'));
  esbuild.buildSync({
    entryPoints: [path.join(out, 'medforge.source.cjs')],
    outfile: path.join(out, 'medforge.cjs'),
    bundle: true, platform: 'node', target: 'node24', minifyWhitespace: true, minifySyntax: true, keepNames: true,
    // Large, and needed only for passwords, certificates and update checks, which this server does not have.
    alias: { argon2: '/ide/unused.cjs', 'proxy-agent': '/ide/unused.cjs' },
    external: ['pem'],
    logLevel: 'warning',
  });
  fs.rmSync(path.join(out, 'medforge.source.cjs'));
  fs.copyFileSync('/ide/start.cjs', '/opt/ide/start.cjs');
}

function python() {
  const folder = path.join(vscode, 'extensions/medforge-python');
  fs.mkdirSync(folder);
  fs.copyFileSync('/ide/python/package.json', path.join(folder, 'package.json'));
  esbuild.buildSync({
    entryPoints: ['/ide/python/extension.cjs'], outfile: path.join(folder, 'extension.js'),
    bundle: true, platform: 'node', target: 'node24', minifyWhitespace: true, external: ['vscode'], nodePaths: ['/opt/ide/node_modules'], logLevel: 'warning',
  });
}

// Settings of every scope can be given to the workbench as defaults here (an extension may only set some), so that a
// user's own settings win over them, and nothing has to be written into the workspace. The page is also where the product's
// telemetry address is taken out: Code's own switch only covers the server.
function defaults() {
  const page = path.join(vscode, 'out/vs/code/browser/workbench/workbench.html');
  const anchor = '<!-- Workbench Auth Session -->';
  const html = fs.readFileSync(page, 'utf8');
  if (html.split(anchor).length !== 2) throw new Error(`${page} is not the page this was written for: "${anchor}" is not there once`);
  const settings = JSON.stringify(JSON.parse(fs.readFileSync('/ide/defaults.json', 'utf8'))).replaceAll('<', '\\u003c');
  const script = `<script nonce="{{WORKBENCH_SCRIPT_NONCE}}">{
			const meta = document.getElementById('vscode-workbench-web-configuration');
			const given = JSON.parse(meta.dataset.settings);
			const productConfiguration = { ...given.productConfiguration, enableTelemetry: false, telemetryEndpoint: undefined, voiceWsUrl: undefined };
			meta.dataset.settings = JSON.stringify({ ...given, productConfiguration, configurationDefaults: ${settings} });
		}</script>
		`;
  fs.writeFileSync(page, html.replace(anchor, () => script + anchor));
}

// Chat with a vendor's cloud service, the vendor's sign-in and telemetry, and binaries for other machines.
function prune() {
  const platform = `${process.platform}-${process.arch}`;
  const unused = [
    'extensions/copilot', 'extensions/microsoft-authentication', 'extensions/tunnel-forwarding',
    'node_modules/@github', 'node_modules/@microsoft/mxc-sdk', 'node_modules/@parcel/watcher-linux-x64-musl', 'node_modules/@parcel/watcher-linux-arm64-musl',
    ...fs.readdirSync(path.join(vscode, 'node_modules/node-pty/prebuilds')).filter((name) => name !== platform).map((name) => `node_modules/node-pty/prebuilds/${name}`),
    ...fs.readdirSync(path.join(vscode, 'node_modules/@vscode/ripgrep-universal/bin')).filter((name) => name !== platform).map((name) => `node_modules/@vscode/ripgrep-universal/bin/${name}`),
  ];
  for (const item of unused) fs.rmSync(path.join(vscode, item), { recursive: true, force: true });
  for (const file of walk(vscode)) if (file.endsWith('.map')) fs.rmSync(file);
  for (const tool of ['esbuild', '@esbuild', '.bin', 'vscode-languageclient', 'vscode-languageserver-protocol', 'vscode-languageserver-types', 'vscode-jsonrpc']) fs.rmSync(path.join('/opt/ide/node_modules', tool), { recursive: true });
  // The name people know, beside code-server's own.
  fs.symlinkSync('code-server', path.join(vscode, 'bin/remote-cli/code'));
}

const types = { '.js': 'text/javascript', '.css': 'text/css', '.json': 'application/json', '.svg': 'image/svg+xml', '.wasm': 'application/wasm', '.ttf': 'font/ttf' };

async function compress() {
  const table = {};
  const jobs = [];
  for (const folder of ['out/media', 'out/vs', 'node_modules/@xterm', 'node_modules/@vscode', 'node_modules/vscode-oniguruma', 'node_modules/vscode-textmate', 'extensions']) {
    for (const file of walk(path.join(vscode, folder))) {
      const name = path.relative(vscode, file);
      const type = types[path.extname(file)];
      const browser = folder !== 'extensions' || /\/(theme-|themes\/|icons\/|media\/|browser\/)/.test('/' + name);
      if (!type || !browser || /\/node\//.test(name) || fs.statSync(file).size < 4096) continue;
      jobs.push({ file, name, type });
    }
  }
  for (const language of ['out/nls.messages.js']) jobs.push({ file: path.join(vscode, language), name: language, type: types['.js'] });
  let next = 0;
  const brotli = require('node:util').promisify(zlib.brotliCompress);
  await Promise.all(Array.from({ length: 4 }, async () => {
    for (let job; (job = jobs[next++]); ) {
      const content = fs.readFileSync(job.file);
      const packed = await brotli(content, { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 9, [zlib.constants.BROTLI_PARAM_SIZE_HINT]: content.length } });
      fs.writeFileSync(job.file + '.br', packed);
      table[job.name] = { type: job.type, size: packed.length };
    }
  }));
  fs.writeFileSync('/opt/ide/static.json', JSON.stringify(table));
}

function* walk(folder) {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) yield* walk(file);
    else if (entry.isFile()) yield file;
  }
}

(async () => {
  for (const step of [bundle, python, defaults, prune, compress]) {
    const began = performance.now();
    await step();
    console.log(`${step.name}: ${Math.round(performance.now() - began)} ms`);
  }
})();
