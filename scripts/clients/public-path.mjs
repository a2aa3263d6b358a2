// Checks a server with `--public-path /portfolio` behind a proxy that serves it there and does not say so, as a location of
// nginx does: a client of HTTP+SSE has to be given an address for its messages that leads through the proxy.
//
//   node public-path.mjs URL
//
// Prints a line for each check and stops at the first that fails.
import assert from 'node:assert/strict';
import http from 'node:http';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { check } from './agent.mjs';

const [url] = process.argv.slice(2);
const PREFIX = '/portfolio';

const proxy = http.createServer((request, response) => {
  if (!request.url.startsWith(`${PREFIX}/`)) {
    response.writeHead(404).end();
    return;
  }
  const options = { method: request.method, headers: request.headers };
  const forwarded = http.request(`${url}${request.url.slice(PREFIX.length)}`, options, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  forwarded.on('error', () => response.destroy());
  response.on('close', () => forwarded.destroy());
  request.pipe(forwarded);
});
await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
const address = `http://127.0.0.1:${proxy.address().port}${PREFIX}`;

for (const [transport, target] of [
  ['sse', new SSEClientTransport(new URL(`${address}/sse`))],
  ['http', new StreamableHTTPClientTransport(new URL(`${address}/mcp`))],
]) {
  await check(`public-path: a client connects over ${transport}, finds the eight tools and calls one`, async () => {
    const client = new Client({ name: 'public-path-checks', version: '1.0.0' });
    await client.connect(target, { timeout: 20_000 });
    const { tools } = await client.listTools();
    assert.equal(tools.length, 8);
    const { isError, structuredContent } = await client.callTool({ name: 'list_projects', arguments: { limit: 1 } });
    assert.ok(!isError);
    assert.equal(structuredContent.data.length, 1);
    await client.close();
  });
}

proxy.closeAllConnections();
proxy.close();
