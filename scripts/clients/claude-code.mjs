// Checks the setups that docs/clients.md has for Claude Code: each is added as it is written there, and the health check of
// `claude mcp list` connects. No account is needed.
//
//   node claude-code.mjs CLAUDE HOME ROOT SERVER STORE URL [TOKEN]
//
// With a token, checks the setups that send one, else the others. Prints a line for each check and stops at the first that
// fails.
import assert from 'node:assert/strict';
import { Home, check } from './agent.mjs';

const [script, folder, root, server, store, url, token] = process.argv.slice(2);
const home = new Home(folder, { root, server, store, url, token, agent: { name: 'claude', script } });
const name = (text) => `claude-code ${token ? 'with' : 'without'} a token: ${text}`;

function status() {
  const list = home.run('claude mcp list');
  const line = list.match(/^portfolio(?:-demo)?: .* - (.*)$/m);
  assert.ok(line, `the server is not in the list:\n${list}`);
  return line[1];
}

for (const { language, example, title } of home.examples('Claude Code', 'Try it with a SQLite file')) {
  if (language === 'sh' && example.startsWith('portfolio-mcp ')) home.run(example);
  if (language === 'sh' && example.startsWith('claude mcp add ')) {
    await check(name(title), () => {
      home.run(example);
      assert.equal(status(), '✔ Connected');
    });
    home.remove('.claude.json', '.claude');
  }
}

const files = home.examples('Claude Code').filter(({ language }) => language === 'json');
if (!token) files.push({ example: home.read('mcp.json.example'), title: 'mcp.json.example' });
assert.ok(files.length > 0);
for (const { example, title } of files) {
  await check(name(`.mcp.json: ${title}`), () => {
    home.write('work/.mcp.json', example);
    assert.match(status(), /^⏸ Pending approval/);
    home.write('.claude/settings.json', JSON.stringify({ enabledMcpjsonServers: ['portfolio'] }));
    assert.equal(status(), '✔ Connected');
  });
  home.remove('work/.mcp.json', '.claude.json', '.claude');
}

if (token) {
  await check(name('a setup that sends none is shown as failed'), () => {
    home.run(`claude mcp add --transport http portfolio ${url}/mcp`);
    assert.equal(status(), '✘ Failed to connect');
  });
}
