"use strict";

const vscode = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

/** @type {LanguageClient | undefined} */
let client;

async function start() {
  const command = vscode.workspace.getConfiguration("etude").get("command", "etude");
  client = new LanguageClient(
    "etude",
    "etude",
    { command, args: ["lsp"] },
    {
      documentSelector: [{ scheme: "file", language: "etude" }],
      synchronize: { fileEvents: vscode.workspace.createFileSystemWatcher("**/*.etude") },
    },
  );
  try {
    await client.start();
  } catch (problem) {
    const chosen = await vscode.window.showErrorMessage(
      `The language server did not start: ${problem.message}. ` +
        "Install it with: pip install 'etude[lsp]', or set the path to etude.",
      "Open settings",
    );
    if (chosen) {
      await vscode.commands.executeCommand("workbench.action.openSettings", "etude.command");
    }
  }
}

async function stop() {
  const running = client;
  client = undefined;
  if (running && running.needsStop()) {
    await running.stop();
  }
}

async function activate(context) {
  const restart = async () => {
    await stop();
    await start();
  };
  context.subscriptions.push(
    vscode.commands.registerCommand("etude.restart", restart),
    vscode.workspace.onDidChangeConfiguration(async (event) => {
      if (event.affectsConfiguration("etude.command")) {
        await restart();
      }
    }),
  );
  await start();
}

module.exports = { activate, deactivate: stop };
