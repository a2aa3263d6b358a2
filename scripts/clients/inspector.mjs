// Checks the server with the command line of the MCP Inspector, over each transport and in each era of the protocol:
// `legacy` starts with a handshake, `modern` (2026-07-28) does not.
//
//   node inspector.mjs INSPECTOR URL COMMAND [ARGUMENT...]
//
// Prints a line for each check and stops at the first that fails.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';

const [inspector, url, ...command] = process.argv.slice(2);
const WAYS = [
  ['stdio', 'legacy', ['--', ...command]],
  ['stdio', 'modern', ['--', ...command]],
  ['sse', 'legacy', ['--server-url', `${url}/sse`]],
  ['http', 'legacy', ['--server-url', `${url}/mcp`]],
  ['http', 'modern', ['--server-url', `${url}/mcp`]],
];

function inspect(transport, era, target, ...request) {
  const options = ['--cli', '--transport', transport, '--protocol-era', era, '--format', 'json', ...request];
  const { status, stdout, stderr } = spawnSync(process.execPath, [inspector, ...options, ...target], {
    encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 60_000,
  });
  assert.equal(status, 0, `exit code ${status}\n${stdout}\n${stderr}`);
  return JSON.parse(stdout).result;
}

function check(name, body) {
  try {
    body();
  } catch (error) {
    console.log(`FAILED inspector ${name}\n${error.stack}`);
    process.exit(1);
  }
  console.log(`ok inspector ${name}`);
}

for (const [transport, era, target] of WAYS) {
  check(`${transport}, ${era}: lists the eight tools, with schemas that every client can read`, () => {
    const { tools } = inspect(transport, era, target, '--method', 'tools/list', '--strict');
    assert.equal(tools.length, 8);
  });
  check(`${transport}, ${era}: calls a tool`, () => {
    const call = ['--method', 'tools/call', '--tool-name', 'list_projects', '--tool-arg', 'limit=1'];
    const { isError, structuredContent } = inspect(transport, era, target, ...call);
    assert.ok(!isError);
    assert.equal(structuredContent.success, true);
    assert.equal(structuredContent.data.length, 1);
  });
}
