// A whole installation of the real binary in a folder of its own: server, runner, a signed-in
// `pipectl`, a bare repository to push to. The server can be killed and started again.
// Jobs run by the local executor, so that no image is needed; nothing of them touches the machine.

import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { closeSync, openSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';

const exec = promisify(execFile);

const freePort = () => new Promise((done) => {
  const server = createServer().listen(0, '127.0.0.1', () => {
    const { port } = server.address();
    server.close(() => done(port));
  });
});

/** Asks until the answer is there; says for what it waited when it gives up. */
export async function until(what, ask, seconds = 60) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const answer = await ask().catch(() => undefined);
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`gave up waiting: ${what}`);
    await new Promise((done) => setTimeout(done, 100));
  }
}

export class Installation {
  static async start(pipectl) {
    const it = new Installation();
    it.pipectlPath = pipectl;
    it.dir = await mkdtemp(join(tmpdir(), 'pipeyard-e2e-'));
    it.port = await freePort();
    it.url = `http://127.0.0.1:${it.port}`;
    it.children = new Map();
    await writeFile(join(it.dir, 'token'), randomBytes(32).toString('hex'), { mode: 0o600 });
    await it.startServer();
    await it.pipectl('login', it.url, '--code', await it.code());
    it.spawn('runner', ['runner', '--server', it.url, '--name', 'yard-1', '--executor', 'local', '--slots', '3', '--data', join(it.dir, 'runner'), '--token-file', join(it.dir, 'token')]);
    await until('the runner registers', async () => (await it.json('runners', 'list')).length > 0);
    await it.makeRepo();
    return it;
  }

  spawn(name, args) {
    const log = openSync(join(this.dir, `${name}.log`), 'a');
    this.children.set(name, spawn(this.pipectlPath, args, { stdio: ['ignore', log, log], env: { ...process.env, RUST_LOG: 'info' } }));
    closeSync(log);
  }

  async startServer() {
    this.spawn('server', ['server', '--listen', `127.0.0.1:${this.port}`, '--data', join(this.dir, 'server'), '--runner-token-file', join(this.dir, 'token')]);
    await until('the server is ready', async () => (await fetch(`${this.url}/readyz`)).ok, 30).catch(async (error) => {
      throw new Error(`${error.message}\n${await readFile(join(this.dir, 'server.log'), 'utf8')}`);
    });
  }

  async kill(name, signal = 'SIGKILL') {
    const child = this.children.get(name);
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((done) => child.once('exit', done));
    child.kill(signal);
    await gone;
  }

  /** A new one-time login. */
  async code() {
    return (await this.pipectl('login-code', '--data', join(this.dir, 'server'))).trim();
  }

  async pipectl(...args) {
    const { stdout } = await exec(this.pipectlPath, args, { env: { ...process.env, HOME: this.dir, XDG_CONFIG_HOME: join(this.dir, 'config') }, maxBuffer: 64 << 20 });
    return stdout;
  }

  async json(...args) {
    return JSON.parse(await this.pipectl(...args, '--output', 'json'));
  }

  git(cwd, ...args) {
    return exec('git', ['-c', 'user.name=Mina Park', '-c', 'user.email=mina@example.com', ...args], { cwd });
  }

  async makeRepo() {
    this.bare = join(this.dir, 'shop.git');
    this.work = join(this.dir, 'shop');
    await this.git(this.dir, 'init', '-q', '--bare', '-b', 'main', this.bare);
    await this.git(this.dir, 'init', '-q', '-b', 'main', this.work);
    await this.git(this.work, 'remote', 'add', 'origin', this.bare);
    await this.pipectl('repos', 'add', this.bare, '--install-hook');
  }

  /** Commits files and pushes them; answers the number of the run that follows. */
  async push(title, files) {
    for (const [path, content] of Object.entries(files)) {
      await mkdir(dirname(join(this.work, path)), { recursive: true });
      await writeFile(join(this.work, path), content);
    }
    await this.git(this.work, 'add', '-A');
    await this.git(this.work, 'commit', '-q', '-m', title);
    const { stdout } = await this.git(this.work, 'rev-parse', 'HEAD');
    await this.git(this.work, 'push', '-q', 'origin', 'HEAD:refs/heads/main');
    const run = await until(`a run of ${title}`, async () => (await this.json('runs', 'list')).find((r) => r.commit === stdout.trim()), 90);
    return run.id;
  }

  async finished(id, seconds = 120) {
    return until(`run ${id} is over`, async () => {
      const run = await this.json('runs', 'view', String(id));
      return run.status === 'finished' ? run : undefined;
    }, seconds);
  }

  async close() {
    for (const name of this.children.keys()) await this.kill(name, 'SIGTERM');
    await rm(this.dir, { recursive: true, force: true });
  }
}
