// A small server that speaks the API's shapes from fixtures, serves the built UI under the real
// Content-Security-Policy, and lets a test write log lines, send events and drop connections.
// `node mock.mjs [port]` runs it by hand with a log that grows.

import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { dirname, extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

import * as deploys from './fixtures-deploys.mjs';
import * as fixtures from './fixtures.mjs';

const DIST = join(dirname(fileURLToPath(import.meta.url)), '../../web/dist');
const CSP = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
export const CODE = 'yard-1234-abcd';

export async function startMock({ port = 0, liveLines = 5000 } = {}) {
  const state = {
    repos: structuredClone(fixtures.repos), runs: structuredClone(fixtures.runs), secrets: structuredClone(fixtures.secrets),
    runners: structuredClone(fixtures.runners), deployments: structuredClone(deploys.deployments), incidents: structuredClone(deploys.incidents),
    live: Array.from({ length: liveLines }, (_, i) => liveLine(i + 1)), liveComplete: false,
    events: new Set(), followers: new Set(), seq: 1, calls: [],
  };

  const server = createServer((request, response) => {
    handle(state, request, response).catch((error) => send(response, error.status ?? 500, { error: { code: error.code ?? 'mock_error', message: error.message, hint: error.hint } }));
  });
  await new Promise((done) => server.listen(port, '127.0.0.1', done));
  const url = `http://127.0.0.1:${server.address().port}`;

  return {
    url, state,
    append(count, make = (n) => `line ${n}`) {
      const added = [];
      for (let i = 0; i < count; i += 1) {
        const n = state.live.length + 1;
        const line = { ...liveLine(n), text: make(n) };
        state.live.push(line);
        added.push(line);
      }
      for (const response of state.followers) response.write(`id: ${added.at(-1).n}\ndata: ${JSON.stringify(added)}\n\n`);
    },
    finish() {
      state.liveComplete = true;
      for (const response of state.followers) response.write('event: end\ndata: {}\n\n');
    },
    emit(kind, more = {}) {
      state.seq += 1;
      const event = { seq: state.seq, at: new Date().toISOString(), kind, run: null, job: null, deployment: null, ...more };
      for (const response of state.events) response.write(`id: ${event.seq}\ndata: ${JSON.stringify(event)}\n\n`);
    },
    drop() {
      for (const response of [...state.events, ...state.followers]) response.destroy();
    },
    async close() {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    },
  };
}

const liveLine = (n) => ({ n, at: new Date(Date.now()).toISOString(), step: 1, stream: 'stdout', text: `line ${n}` });

class Refused extends Error {
  constructor(status, code, message, hint) {
    super(message);
    Object.assign(this, { status, code, hint });
  }
}

function send(response, status, body, headers = {}) {
  if (response.headersSent) return response.end();
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(body === undefined ? '' : JSON.stringify(body));
}

async function bodyOf(request) {
  let text = '';
  for await (const chunk of request) text += chunk;
  return text === '' ? {} : JSON.parse(text);
}

function stream(request, response, set) {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  response.write(': hello\n\n');
  set.add(response);
  request.on('close', () => set.delete(response));
}

function logOf(state, runId, job, epoch) {
  if (runId === 86 && job === 'test') return { total: state.live.length, complete: state.liveComplete, line: (n) => state.live[n - 1] };
  return fixtures.logOf(runId, job, epoch);
}

async function handle(state, request, response) {
  const url = new URL(request.url, 'http://mock');
  const path = decodeURIComponent(url.pathname);
  const q = url.searchParams;
  const { method } = request;
  if (!path.startsWith('/api/')) return page(path, response);
  if (method !== 'GET') state.calls.push(`${method} ${path}`);

  if (path === '/api/login') {
    const { code } = await bodyOf(request);
    if (code !== CODE) throw new Refused(401, 'bad_code', 'This code isn’t valid, or it was used before.', 'pipectl login-code');
    return send(response, 200, me, { 'set-cookie': 'pipeyard=mock; Path=/; HttpOnly; SameSite=Lax' });
  }
  if (!/pipeyard=mock/.test(request.headers.cookie ?? '')) throw new Refused(401, 'unauthenticated', 'You aren’t signed in.', 'pipectl login');
  if (path === '/api/logout') return send(response, 204, undefined, { 'set-cookie': 'pipeyard=; Path=/; Max-Age=0' });
  if (path === '/api/me') return send(response, 200, me);
  if (path === '/api/events') return stream(request, response, state.events);

  let m;
  if (path === '/api/runs' && method === 'GET') {
    const before = Number(q.get('before') ?? Infinity);
    const limit = Number(q.get('limit') ?? 50);
    const all = state.runs.filter((r) => r.id < before && ['repo', 'branch', 'status', 'conclusion'].every((k) => !q.get(k) || r[k] === q.get(k)));
    const items = all.slice(0, limit).map(({ jobs, diagnostics, ...rest }) => rest);
    return send(response, 200, { items, ...(all.length > limit ? { next: String(items.at(-1).id) } : {}) });
  }
  if (path === '/api/runs' && method === 'POST') return send(response, 201, state.runs[0]);
  if ((m = /^\/api\/runs\/(\d+|latest)(?:\/(.*))?$/.exec(path))) return runs(state, request, response, m[1], m[2] ?? '', q);
  if (/^\/api\/artifacts\//.test(path)) {
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-disposition': 'attachment' });
    return response.end('bytes');
  }
  if (path === '/api/repos' && method === 'GET') return send(response, 200, state.repos);
  if (path === '/api/repos' && method === 'POST') {
    const body = await bodyOf(request);
    const name = body.name ?? body.url.split('/').at(-1).replace(/\.git$/, '');
    if (state.repos.some((r) => r.name === name)) throw new Refused(409, 'repo_exists', `There is a repository ${name} already.`, 'give it another name');
    const repo = { id: `r${state.repos.length + 1}`, name, forge: body.forge ?? 'git', url: body.url, default_branch: body.default_branch ?? 'main', hook_path: '/hooks/git/0192f0c9', hook: '0192f0c9', created_at: new Date().toISOString(), problem: null };
    state.repos.push(repo);
    return send(response, 201, { repo, hook_secret: 's3cr3t-only-once-7f3a' });
  }
  if ((m = /^\/api\/repos\/(.+)$/.exec(path)) && method === 'DELETE') {
    state.repos = state.repos.filter((r) => r.name !== m[1]);
    return send(response, 204);
  }
  if (path === '/api/audit') return send(response, 200, { items: fixtures.audit });
  if (path === '/api/runners') return send(response, 200, state.runners);
  if (path === '/api/runners/tokens') return send(response, 201, { token: 'pyr_4f1c9a0b7d', expires_at: new Date(Date.now() + 3_600_000).toISOString() });
  if ((m = /^\/api\/runners\/(.+)$/.exec(path)) && method === 'DELETE') {
    state.runners = state.runners.filter((r) => r.id !== m[1]);
    return send(response, 204);
  }
  if (path === '/api/secrets') return send(response, 200, state.secrets);
  if ((m = /^\/api\/secrets\/(.+)$/.exec(path))) {
    const repo = q.get('repo');
    state.secrets = state.secrets.filter((s) => !(s.name === m[1] && s.repo === repo));
    if (method === 'PUT') {
      const { value, branches = [] } = await bodyOf(request);
      if (repo === null && q.get('all_repos') !== 'true') throw new Refused(400, 'secret_scope_missing', 'say whose the secret is');
      if (value.length < 8) throw new Refused(400, 'secret_too_short', 'A secret has at least 8 bytes, so that masking it doesn’t eat ordinary words.');
      const scope = branches.length > 0 ? branches.join(', ') : 'every branch';
      state.secrets.push({ name: m[1], repo, branches, default_branch_only: false, events: [], scope, limited_by_upgrade: false, updated_at: new Date().toISOString(), used_at: null });
    }
    return send(response, 204);
  }
  if (await deploys.handle(state, { method, path, q, body: () => bodyOf(request), refuse: (...args) => { throw new Refused(...args); }, send: (status, body) => send(response, status, body) })) return undefined;
  throw new Refused(404, 'not_found', `There is no ${method} ${path}.`);
}

const me = { user: 'u1', name: 'Mina Park', role: 'admin' };

async function runs(state, request, response, id, rest, q) {
  const run = id === 'latest' ? state.runs[0] : state.runs.find((r) => r.id === Number(id));
  if (!run) throw new Refused(404, 'run_not_found', `There is no run ${id}.`, 'pipectl runs list');
  const { jobs, diagnostics, ...view } = run;
  if (rest === '') return send(response, 200, run);
  if (rest === 'artifacts') return send(response, 200, fixtures.artifacts.filter((a) => a.run === run.id));
  if (rest === 'cancel') {
    Object.assign(run, { status: 'finished', conclusion: 'cancelled', finished_at: new Date().toISOString() });
    return send(response, 200, { ...view, status: 'finished', conclusion: 'cancelled' });
  }
  if (rest === 'approve') {
    Object.assign(run, { held: false, reason: null });
    return send(response, 200, { ...view, held: false });
  }
  if (rest === 'rerun') return send(response, 200, view);
  if (/^jobs\/[^/]+\/tests$/.test(rest)) {
    if (run.id !== 81) throw new Refused(404, 'not_found', 'there is no test report of this job yet');
    return send(response, 200, fixtures.testReport);
  }
  const m = /^jobs\/([^/]+)\/log(?:\/(raw|search|follow))?$/.exec(rest);
  if (!m) throw new Refused(404, 'not_found', 'There is no such thing.');
  const attempt = Number(q.get('attempt') ?? jobs.find((j) => j.name === m[1])?.epoch ?? 1);
  const log = logOf(state, run.id, m[1], attempt);
  if (m[2] === 'follow') {
    const from = Number(q.get('from') ?? 1);
    stream(request, response, state.followers);
    const missed = Array.from({ length: Math.max(0, log.total - from + 1) }, (_, i) => log.line(from + i));
    if (missed.length > 0) response.write(`id: ${missed.at(-1).n}\ndata: ${JSON.stringify(missed)}\n\n`);
    if (log.complete) response.write('event: end\ndata: {}\n\n');
    return undefined;
  }
  if (m[2] === 'search') {
    const words = q.get('q').toLowerCase();
    const lines = [];
    for (let n = 1; n <= log.total; n += 1) if (log.line(n).text.toLowerCase().includes(words)) lines.push(n);
    return send(response, 200, { lines: lines.slice(0, 10_000), total: lines.length });
  }
  if (m[2] === 'raw') {
    response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' });
    return response.end(Array.from({ length: Math.min(log.total, 1000) }, (_, i) => log.line(i + 1).text).join('\n'));
  }
  const asked = Number(q.get('from') ?? 1);
  const from = asked < 0 ? Math.max(1, log.total + asked + 1) : asked;
  const count = Math.min(Number(q.get('count') ?? 500), 5000);
  const lines = [];
  for (let n = from; n < from + count && n <= log.total; n += 1) lines.push(log.line(n));
  return send(response, 200, { attempt, lines, total: log.total, complete: log.complete });
}

function page(path, response) {
  let file = normalize(join(DIST, path));
  if (!file.startsWith(DIST) || !existsSync(file) || statSync(file).isDirectory()) file = join(DIST, 'index.html');
  const cache = file.includes('/assets/') ? 'public, max-age=31536000, immutable' : 'no-cache';
  response.writeHead(200, { 'cache-control': cache, 'content-type': TYPES[extname(file)] ?? 'application/octet-stream', 'content-security-policy': CSP, 'x-content-type-options': 'nosniff', 'referrer-policy': 'same-origin' });
  createReadStream(file).pipe(response);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const mock = await startMock({ port: Number(process.argv[2] ?? 8479) });
  process.stdout.write(`${mock.url}/login#code=${CODE}\n`);
  setInterval(() => mock.append(3), 700);
}
