// Checks the setups that docs/clients.md has for Codex: each is added as it is written there, `codex mcp list` shows it, and
// Codex connects, finds the eight tools and calls one. `codex mcp list` itself does not connect; Codex's app server does, and
// needs no account for it.
//
//   node codex.mjs CODEX HOME ROOT SERVER STORE URL [TOKEN]
//
// With a token, checks the setups that send one, else the others. Prints a line for each check and stops at the first that
// fails.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { Home, check } from './agent.mjs';

const [script, folder, root, server, store, url, token] = process.argv.slice(2);
const home = new Home(folder, { root, server, store, url, token, agent: { name: 'codex', script } });
const name = (text) => `codex ${token ? 'with' : 'without'} a token: ${text}`;

/// Codex as its editor extensions start it.
class AppServer {
  constructor() {
    this.child = spawn('codex', ['app-server'], {
      cwd: home.work, env: home.environment, stdio: ['pipe', 'pipe', 'ignore'], timeout: 60_000,
    });
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
    this.id = 0;
  }

  send(message) {
    this.child.stdin.write(`${JSON.stringify(message)}\n`);
  }

  async request(method, params) {
    const id = ++this.id;
    this.send({ id, method, params });
    for (;;) {
      const { value, done } = await this.lines.next();
      assert.ok(!done, `codex ended without an answer to ${method}`);
      const message = JSON.parse(value);
      if (message.id !== id) continue;
      assert.ok(message.result, `${method}: ${JSON.stringify(message.error)}`);
      return message.result;
    }
  }

  /// Ends it and waits, because until then it writes to its folder.
  async stop() {
    const closed = new Promise((resolve) => this.child.once('close', resolve));
    this.child.kill();
    await closed;
  }

  async start() {
    await this.request('initialize', { clientInfo: { name: 'checks', title: 'checks', version: '1.0.0' } });
    this.send({ method: 'initialized' });
  }
}

async function connects(call) {
  const [{ name: server, enabled }] = JSON.parse(home.run('codex mcp list --json'));
  assert.ok(enabled);
  const codex = new AppServer();
  try {
    await codex.start();
    const { data: [{ tools, toolsError }] } = await codex.request('mcpServerStatus/list', {});
    assert.equal(Object.keys(tools).length, 8, toolsError);
    if (!call) return;
    const { thread } = await codex.request('thread/start', {});
    const request = { threadId: thread.id, server, tool: 'list_projects', arguments: { limit: 1 } };
    const { isError, structuredContent } = await codex.request('mcpServer/tool/call', request);
    assert.ok(!isError);
    assert.equal(structuredContent.data.length, 1);
  } finally {
    await codex.stop();
  }
}

let count = 0;
for (const { language, example, title } of home.examples('Codex', 'Try it with a SQLite file')) {
  if (language === 'sh' && example.startsWith('portfolio-mcp ')) home.run(example);
  const added = language === 'sh' && example.startsWith('codex mcp add ');
  if (!added && language !== 'toml') continue;
  count += 1;
  await check(name(title), () => {
    if (added) home.run(example);
    else home.write('.codex/config.toml', example);
    // There is no Redis to answer a call.
    return connects(!example.includes('REDIS_URL'));
  });
  home.remove('.codex');
}
assert.ok(count > 0);
