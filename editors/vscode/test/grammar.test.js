"use strict";

// The grammar on the examples, by the engine that VS Code itself uses: the scopes of every token
// are compared with those in test/snapshots. `UPDATE=1 npm test` writes them anew.

const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const test = require("node:test");
const oniguruma = require("vscode-oniguruma");
const textmate = require("vscode-textmate");

const ROOT = path.join(__dirname, "..", "..", "..");
const SNAPSHOTS = path.join(__dirname, "snapshots");
const GRAMMAR = path.join(__dirname, "..", "syntaxes", "etude.tmLanguage.json");
const EXAMPLES = path.join(ROOT, "examples");

async function grammar() {
  const wasm = require.resolve("vscode-oniguruma/release/onig.wasm");
  await oniguruma.loadWASM(fs.readFileSync(wasm).buffer);
  const registry = new textmate.Registry({
    onigLib: Promise.resolve({
      createOnigScanner: (patterns) => new oniguruma.OnigScanner(patterns),
      createOnigString: (text) => new oniguruma.OnigString(text),
    }),
    loadGrammar: async () => textmate.parseRawGrammar(fs.readFileSync(GRAMMAR, "utf8"), GRAMMAR),
  });
  return registry.loadGrammar("source.etude");
}

/** Each line, and below it what every token of it is; blanks without a scope of their own are left out. */
function scopes(of, text) {
  const lines = [];
  let state = textmate.INITIAL;
  for (const line of text.split("\n")) {
    lines.push(`> ${line}`);
    const found = of.tokenizeLine(line, state);
    state = found.ruleStack;
    for (const token of found.tokens) {
      const part = line.slice(token.startIndex, token.endIndex);
      const names = token.scopes.slice(1);
      if (part.trim() || names.length) {
        lines.push(`  ${JSON.stringify(part)}: ${names.join(" ") || "-"}`);
      }
    }
  }
  return lines.join("\n") + "\n";
}

const loaded = grammar();
const files = fs.readdirSync(EXAMPLES).filter((name) => name.endsWith(".etude")).map((name) => path.join(EXAMPLES, name));
files.push(path.join(__dirname, "broken.etude"));

for (const file of files) {
  const name = path.basename(file);
  test(`the tokens of ${name}`, async () => {
    const found = scopes(await loaded, fs.readFileSync(file, "utf8"));
    const snapshot = path.join(SNAPSHOTS, `${name}.txt`);
    if (process.env.UPDATE) {
      fs.mkdirSync(SNAPSHOTS, { recursive: true });
      fs.writeFileSync(snapshot, found);
    }
    assert.strictEqual(found, fs.readFileSync(snapshot, "utf8"));
  });
}

test("what is broken on one line leaves the next as it is", async () => {
  const of = await loaded;
  const text = 'title = "no end\nseed = 4 # "\n';
  const after = scopes(of, text).split("> seed")[1];
  assert.match(after, /"4": constant.numeric.etude/);
  assert.match(after, /comment.line/);
});
