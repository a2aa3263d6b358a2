// What the checks of the coding agents share: a home folder as docs/clients.md describes it, and the examples of that page.
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/// A home folder, in which `portfolio-mcp` and the agent are on the PATH and the store's address is in its file.
export class Home {
  constructor(folder, { root, server, store, url, token, agent }) {
    this.folder = folder;
    this.root = root;
    this.url = url;
    this.work = join(folder, 'work');
    const programs = join(folder, '.cargo/bin');
    const config = join(folder, '.config/portfolio-mcp');
    for (const made of [this.work, programs, config]) mkdirSync(made, { recursive: true });
    symlinkSync(server, join(programs, 'portfolio-mcp'));
    symlinkSync(join(root, 'examples'), join(this.work, 'examples'));
    writeFileSync(join(config, 'store'), `${store}\n`, { mode: 0o600 });
    const start = join(programs, agent.name);
    writeFileSync(start, `#!/bin/sh\nexec '${process.execPath}' '${agent.script}' "$@"\n`);
    chmodSync(start, 0o755);
    this.environment = {
      HOME: folder,
      PATH: `${programs}:${process.env.PATH}`,
      // Nothing listens there: a server that got this address starts, one that got no address uses a file.
      REDIS_URL: 'redis://127.0.0.1:1',
      SITE_TOKEN: token,
      // The agents reach nothing but this machine.
      HTTP_PROXY: 'http://127.0.0.1:9',
      HTTPS_PROXY: 'http://127.0.0.1:9',
      NO_PROXY: '127.0.0.1,localhost',
      DISABLE_AUTOUPDATER: '1',
      CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
    };
  }

  /// Runs a line of an example in a shell and returns what it printed.
  run(line) {
    const { status, stdout, stderr } = spawnSync('sh', ['-c', line], {
      cwd: this.work, env: this.environment, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 60_000,
    });
    if (status !== 0) throw new Error(`exit code ${status}: ${line}\n${stdout}\n${stderr}`);
    return stdout;
  }

  write(path, text) {
    const file = join(this.folder, path);
    mkdirSync(join(file, '..'), { recursive: true });
    writeFileSync(file, text);
  }

  remove(...paths) {
    for (const path of paths) rmSync(join(this.folder, path), { recursive: true, force: true });
  }

  read(path) {
    return this.fill(readFileSync(join(this.root, path), 'utf8'));
  }

  /// The lines of shell and the configurations under these headings of docs/clients.md: those that send a token if there is
  /// one, else the others.
  examples(...headings) {
    return readFileSync(join(this.root, 'docs/clients.md'), 'utf8')
      .split(/^## /m)
      .filter((section) => headings.includes(section.split('\n')[0]))
      .flatMap((section) => [...section.matchAll(/^```(\w+)\n(.*?)^```$/gms)])
      .flatMap(([, language, text]) => (language === 'sh' ? text.trim().split('\n') : [text]).map((example) => ({ language, example })))
      .filter(({ example }) => this.environment.SITE_TOKEN ? example.includes('SITE_TOKEN') : !example.includes('SITE_TOKEN'))
      .map(({ language, example }) => ({ language, example: this.fill(example), title: title(example) }));
  }

  /// An example with the paths and the address of this run.
  fill(example) {
    return example.replaceAll('/Users/marie', this.folder).replaceAll('http://127.0.0.1:8787', this.url);
  }
}

/// Runs a check and prints its line. The first that fails ends the program.
export async function check(name, body) {
  try {
    await body();
  } catch (error) {
    console.log(`FAILED ${name}\n${error.stack ?? error}`);
    process.exit(1);
  }
  console.log(`ok ${name}`);
}

/// The first words of an example, for the name of its check.
function title(example) {
  return example.replace(/\s+/g, ' ').slice(0, 110).trim();
}
