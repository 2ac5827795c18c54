'use strict';
// Python in the editor without the marketplace: Pyright as language server, debugpy as debugger, and two buttons that run
// and debug the open file. Steps aside when the user has installed one of the usual extensions for the same.
const fs = require('node:fs');
const path = require('node:path');
const vscode = require('vscode');
const { LanguageClient, TransportKind } = require('vscode-languageclient/node');

const pyright = '/opt/ide/node_modules/pyright/langserver.index.js';
const debugpy = '/opt/ide/python';
const others = ['ms-python.python', 'detachhead.basedpyright', 'ms-pyright.pyright'];

let client;

exports.activate = async (context) => {
  const aside = others.some((id) => vscode.extensions.getExtension(id));
  await vscode.commands.executeCommand('setContext', 'medforge.python.aside', aside);
  if (aside) return;
  client = new LanguageClient('pyright', 'Pyright', { module: pyright, transport: TransportKind.ipc }, {
    documentSelector: [{ language: 'python' }],
    synchronize: { configurationSection: ['python'] },
    middleware: { workspace: { configuration } },
  });
  context.subscriptions.push(
    vscode.debug.registerDebugConfigurationProvider('debugpy', { resolveDebugConfiguration }),
    vscode.debug.registerDebugAdapterDescriptorFactory('debugpy', { createDebugAdapterDescriptor }),
    vscode.commands.registerCommand('medforge.python.run', run),
    vscode.commands.registerCommand('medforge.python.debug', (file) => debug(file)),
    vscode.commands.registerCommand('medforge.python.restart', () => client.restart()),
    vscode.workspace.onDidChangeConfiguration((event) => event.affectsConfiguration('python.pythonPath') && client.restart()),
  );
  await client.start();
};

exports.deactivate = () => client?.stop();

function interpreter(resource) {
  const set = vscode.workspace.getConfiguration('python', resource).get('pythonPath');
  if (set) return set;
  const folder = (resource && vscode.workspace.getWorkspaceFolder(resource)) ?? vscode.workspace.workspaceFolders?.[0];
  const own = ['.venv', 'venv'].map((name) => folder && path.join(folder.uri.fsPath, name, 'bin/python'));
  return own.find((file) => file && fs.existsSync(file)) ?? '/usr/bin/python3';
}

// Pyright asks for the section `python`; which interpreter that means is known here.
async function configuration(params, token, next) {
  const answers = await next(params, token);
  return answers.map((answer, i) => {
    const { section, scopeUri } = params.items[i];
    return section === 'python' ? { ...answer, pythonPath: interpreter(scopeUri && vscode.Uri.parse(scopeUri)) } : answer;
  });
}

function resolveDebugConfiguration(folder, config) {
  const active = vscode.window.activeTextEditor?.document;
  if (!config.type && active?.languageId === 'python') {
    Object.assign(config, { type: 'debugpy', request: 'launch', name: 'Python: current file', program: active.fileName });
  }
  if (!config.type) return undefined;
  return { console: 'integratedTerminal', cwd: folder?.uri.fsPath, justMyCode: true, python: interpreter(folder?.uri), ...config };
}

function createDebugAdapterDescriptor() {
  return new vscode.DebugAdapterExecutable('/usr/bin/python3', [path.join(debugpy, 'debugpy/adapter')]);
}

async function run(file) {
  const document = await saved(file);
  if (!document) return;
  const name = 'Python';
  const terminal = vscode.window.terminals.find((one) => one.name === name && one.exitStatus === undefined) ?? vscode.window.createTerminal({ name });
  terminal.show(true);
  terminal.sendText([interpreter(document.uri), document.fileName].map(quoted).join(' '));
}

function quoted(word) {
  return /^[\w./+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

async function debug(file) {
  const document = await saved(file);
  if (!document) return;
  const config = { type: 'debugpy', request: 'launch', name: 'Python: current file', program: document.fileName };
  await vscode.debug.startDebugging(vscode.workspace.getWorkspaceFolder(document.uri), config);
}

async function saved(file) {
  const document = file ? await vscode.workspace.openTextDocument(file) : vscode.window.activeTextEditor?.document;
  return document && (!document.isDirty || (await document.save())) ? document : undefined;
}
