// A proxy that serves a server under a path of its own, as nginx and ingresses do: it removes the path from each request
// and names it in `X-Forwarded-Prefix`. Prints its address and runs until it is stopped.
//
//   node prefix-proxy.mjs http://127.0.0.1:PORT /cms
import { createServer, request } from 'node:http';

const [target, prefix] = process.argv.slice(2);

const proxy = createServer((incoming, outgoing) => {
  if (!incoming.url.startsWith(`${prefix}/`)) {
    outgoing.writeHead(404).end();
    return;
  }
  const { method, headers } = incoming;
  const url = new URL(incoming.url.slice(prefix.length), target);
  const passed = request(url, { method, headers: { ...headers, 'x-forwarded-prefix': prefix } }, (answer) => {
    outgoing.writeHead(answer.statusCode, answer.headers);
    answer.pipe(outgoing);
  });
  passed.on('error', () => outgoing.destroy());
  outgoing.on('close', () => passed.destroy());
  incoming.pipe(passed);
});

proxy.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${proxy.address().port}${prefix}`));
