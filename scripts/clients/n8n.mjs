// Calls all eight tools as n8n does, which adds arguments of its own to each call (n8n-io/n8n#21500): the server ignores
// them and says so.
//
//   node n8n.mjs sse|http URL
//
// Prints a line for each check and stops at the first that fails.
import assert from 'node:assert/strict';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { check } from './agent.mjs';

const [transport, url] = process.argv.slice(2);
const Transport = { sse: SSEClientTransport, http: StreamableHTTPClientTransport }[transport];
const ADDED = {
  toolCallId: 'call_0BCIShth4lxZuYr4coSp4E5E',
  sessionId: 'c3f0a2d1b7e84f0f9a65',
  action: 'sendMessage',
  chatInput: 'Which projects are on the site?',
  tool: 'MCP Client',
};
const CALLS = {
  list_projects: {},
  list_resources: { status: 'published' },
  get_project: { id: 'rdv-artisan' },
  get_resource: { id: 'cahier-des-charges-web' },
  update_project: { id: 'rdv-artisan', data: { challenge: `changed by n8n over ${transport}` } },
  update_resource: { id: 'cahier-des-charges-web', data: { price: `free over ${transport}` } },
  get_audit_log: { limit: 5 },
  get_audit_stats: {},
};

const client = new Client({ name: '@n8n/n8n-nodes-langchain.mcpClientTool', version: '1.1.0' });
const name = (text) => `n8n ${transport}: ${text}`;

async function answer(tool, args) {
  const { isError, content, structuredContent } = await client.callTool({ name: tool, arguments: args });
  assert.ok(!isError, `${tool} answered with an error: ${content?.[0]?.text}`);
  return structuredContent;
}

await check(name('connects and finds the eight tools'), async () => {
  await client.connect(new Transport(new URL(url)));
  const { tools } = await client.listTools();
  assert.deepEqual(tools.map((tool) => tool.name).sort(), Object.keys(CALLS).sort());
});

for (const [tool, args] of Object.entries(CALLS)) {
  await check(name(`calls ${tool} with n8n's own arguments, which are ignored and named`), async () => {
    const { meta } = await answer(tool, { ...args, ...ADDED });
    const warnings = (meta.warnings ?? []).join('\n');
    for (const added of Object.keys(ADDED)) {
      assert.ok(warnings.includes(added), `no warning names ${added}: ${warnings}`);
    }
  });
}

await check(name('filters the log by an action beside them'), async () => {
  const { data } = await answer('get_audit_log', { ...ADDED, action: 'update' });
  assert.ok(data.length >= 2);
  assert.ok(data.every(({ action }) => action === 'update'));
});

await check(name('disconnects'), () => client.close());
