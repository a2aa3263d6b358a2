// Checks the server with the TypeScript SDK, whose client checks every answer against the tool's output schema.
//
//   node typescript-sdk.mjs stdio COMMAND [ARGUMENT...]
//   node typescript-sdk.mjs sse|http URL
//
// Prints a line for each check and stops at the first that fails. python-sdk.py makes the same checks.
import assert from 'node:assert/strict';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const [transport, ...target] = process.argv.slice(2);
const TRANSPORTS = {
  stdio: () => new StdioClientTransport({ command: target[0], args: target.slice(1) }),
  sse: () => new SSEClientTransport(new URL(target[0])),
  http: () => new StreamableHTTPClientTransport(new URL(target[0])),
};
const TOOLS = [
  'get_audit_log', 'get_audit_stats', 'get_project', 'get_resource',
  'list_projects', 'list_resources', 'update_project', 'update_resource',
];
const KINDS = [{ kind: 'project', field: 'challenge' }, { kind: 'resource', field: 'price' }];
const SELF = { name: 'typescript-sdk-checks', version: '1.0.0' };

const client = new Client(SELF);

async function check(name, body) {
  try {
    await body();
  } catch (error) {
    console.log(`FAILED typescript-sdk ${transport}: ${name}\n${error.stack ?? error}`);
    process.exit(1);
  }
  console.log(`ok typescript-sdk ${transport}: ${name}`);
}

async function answer(tool, args = {}) {
  const result = await client.callTool({ name: tool, arguments: args });
  assert.ok(!result.isError, `${tool} answered with an error: ${result.content?.[0]?.text}`);
  assert.equal(result.structuredContent.success, true);
  assert.deepEqual(JSON.parse(result.content[0].text), result.structuredContent, 'the text is the same JSON');
  return result.structuredContent;
}

async function refusal(tool, args) {
  const result = await client.callTool({ name: tool, arguments: args });
  assert.equal(result.isError, true, `${tool} accepted ${JSON.stringify(args)}`);
  assert.equal(result.structuredContent, undefined, 'a refusal is text only');
  const { success, error } = JSON.parse(result.content[0].text);
  assert.equal(success, false);
  return error;
}

await check('connects', () => client.connect(TRANSPORTS[transport]()));

await check('finds the eight tools and their schemas', async () => {
  const { tools } = await client.listTools();
  assert.deepEqual(tools.map((tool) => tool.name).sort(), TOOLS);
  for (const { name, inputSchema, outputSchema } of tools) {
    assert.equal(inputSchema.type, 'object', name);
    assert.equal(outputSchema?.type, 'object', name);
  }
});

for (const { kind, field } of KINDS) {
  const broken = `broken-${kind}`;
  let before, after;

  await check(`lists ${kind}s and reads one`, async () => {
    const { data: rows, meta } = await answer(`list_${kind}s`, { limit: 100 });
    assert.equal(meta.total, rows.length);
    const row = rows.find(({ id }) => id !== broken);
    before = await answer(`get_${kind}`, { id: row.id });
    assert.equal(before.data.id, row.id);
    assert.equal(before.data.title, row.title);
    assert.equal(before.meta.version, row.version);
  });

  await check(`changes the ${kind} and reads it back`, async () => {
    const { id } = before.data;
    const value = `${before.data[field]} (seen by ${SELF.name})`;
    const reason = `check over ${transport}`;
    const written = await answer(`update_${kind}`, {
      id, data: { [field]: value }, expectedVersion: before.meta.version, reason, detail: 'full',
    });
    assert.notEqual(written.meta.version, before.meta.version);
    after = await answer(`get_${kind}`, { id });
    assert.equal(after.meta.version, written.meta.version);
    assert.deepEqual(after.data, written.data);
    assert.deepEqual(after.data, {
      ...before.data, [field]: value, metadata: { ...before.data.metadata, updatedAt: after.data.metadata.updatedAt },
    });

    const log = await answer('get_audit_log', { entityType: kind, entityId: id, limit: 1, detail: 'full' });
    const [entry] = log.data;
    assert.equal(entry.id, written.meta.auditId);
    assert.equal(entry.action, 'update');
    assert.equal(entry.source, 'mcp');
    assert.equal(entry.metadata.reason, reason);
    assert.equal(entry.metadata.clientId, `${SELF.name}/${SELF.version}`);
    assert.deepEqual(
      entry.changes.find((change) => change.field === field),
      { field, oldValue: before.data[field], newValue: value },
    );
  });

  await check(`cannot make a change that breaks the rules of the ${kind}, and nothing is written`, async () => {
    const { id } = after.data;
    const error = await refusal(`update_${kind}`, { id, data: { titel: 'x', metadata: { status: 'live' } } });
    assert.equal(error.code, 'VALIDATION_FAILED');
    const paths = error.details.violations.map(({ path }) => path).sort();
    assert.deepEqual(paths, ['metadata.status', 'titel']);
    assert.deepEqual((await answer(`get_${kind}`, { id })).data, after.data);
  });

  await check(`cannot change an older version of the ${kind}`, async () => {
    const error = await refusal(`update_${kind}`, {
      id: after.data.id, data: { [field]: 'late' }, expectedVersion: before.meta.version,
    });
    assert.equal(error.code, 'VERSION_CONFLICT');
    assert.equal(error.details.currentVersion, after.meta.version);
  });

  await check(`lists, reads and edits a stored ${kind} that breaks every rule`, async () => {
    const list = await answer(`list_${kind}s`, { limit: 100, detail: 'full' });
    assert.ok(list.data.some(({ id }) => id === broken));
    assert.ok(list.meta.warnings.length > 0);
    const stored = await answer(`get_${kind}`, { id: broken });
    assert.ok(stored.meta.warnings.length > 0);

    const tags = ['repaired'];
    const written = await answer(`update_${kind}`, { id: broken, data: { tags } });
    assert.ok(written.meta.warnings.length > 0);
    const { data } = await answer(`get_${kind}`, { id: broken });
    const { updatedAt } = data.metadata;
    assert.ok(updatedAt > stored.data.metadata.updatedAt);
    // An older program wrote `published`, `createdAt` and `updatedAt` at the top level; they follow `metadata`.
    const { published, createdAt } = data;
    const metadata = { ...stored.data.metadata, updatedAt };
    // A time that was stored as a number becomes the time that it means.
    if (typeof metadata.createdAt === 'number') metadata.createdAt = new Date(metadata.createdAt).toISOString();
    assert.deepEqual(data, { ...stored.data, tags, metadata, published, createdAt, updatedAt });
  });
}

await check('is served with the arguments that n8n adds to every call', async () => {
  const added = { sessionId: '8d1f', action: 'sendMessage', chatInput: 'x', toolCallId: 'call_1', tool: 'portfolio' };
  for (const tool of ['list_projects', 'get_audit_log', 'get_audit_stats']) {
    const { meta } = await answer(tool, added);
    for (const name of Object.keys(added)) assert.ok(meta.warnings.some((warning) => warning.includes(name)), name);
  }
});

await check('finds its changes in the audit statistics', async () => {
  const { data } = await answer('get_audit_stats');
  assert.equal(data.entriesByAction.update, 4);
  assert.equal(data.entriesBySource.mcp, 4);
  assert.equal(data.recentActivity[0].entityId, 'broken-resource');
});

await check('disconnects', () => client.close());
