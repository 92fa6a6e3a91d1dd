// Environments, deployments, incidents and DORA for the mock: a promoted canary under way, one that
// was rolled back, a rolling one with a failed host, one that awaits approval.

import { at } from './fixtures.mjs';

const sha = (n) => n.toString(16).padStart(4, '0').repeat(10);
const release = (run) => ({ id: `rel-${run}`, repo: 'shop', commit: sha(run * 977), run, artifact: 'shop.tar.gz', sha256: sha(4711).repeat(2).slice(0, 64), size: 1_482_112 });
const approval = { needed: false, by: null, at: null, own: false, comment: null, count: 0, missing: 0, who: null, not_the_author: false, rule: null, given: [] };
const approved = (given) => ({ ...approval, needed: true, by: given.by, at: given.at, own: given.own, comment: given.comment, count: 1, given: [{ counts: true, ...given }] });
const canary = { canary: { steps: [{ weight: 10, for: 60 }, { weight: 50, for: 120 }] } };

let seed = 42;
const random = () => (seed = (seed * 1103515245 + 12345) % 2147483648) / 2147483648;

/** Samples every 5 s: `weight(t)` is the intended share, `bad` the new release's error rate. */
function samples(from, seconds, weight, bad, slow = 0) {
  const out = [];
  for (let t = 0; t <= seconds; t += 5) {
    const w = weight(t);
    const total = 240 + Math.floor(random() * 30);
    const mine = Math.round((total * w) / 100 + (random() - 0.5) * 6 * (w > 0 && w < 100 ? 1 : 0));
    const errors = (n, rate) => Math.round(n * rate * (0.6 + random() * 0.8));
    out.push({
      at: at(from + t), intended_weight: w, measured_weight: w === 0 ? 0 : (100 * mine) / total,
      canary: { requests: mine, errors: errors(mine, bad), p50_ms: 18 + random() * 3, p95_ms: 92 + slow + random() * 18, p99_ms: 160 + slow + random() * 40 },
      stable: w === 100 ? null : { requests: total - mine, errors: errors(total - mine, 0.002), p50_ms: 18 + random() * 3, p95_ms: 90 + random() * 16, p99_ms: 158 + random() * 30 },
    });
  }
  return out;
}

const health = (errors, latency, state, requests) => [
  { limit: { error_rate: 0.01 }, text: 'error_rate < 1 %', state, value: errors, baseline: 0.002, lower_bound: state === 'broken' ? 0.054 : 0, requests, needed: 300, evidence: 1, evidence_limit: 100 },
  { limit: { latency_ms: { percentile: 95, below: 300 } }, text: 'p95_ms < 300', state: 'holding', value: latency, baseline: 98, lower_bound: 0, requests, needed: 300, evidence: 1, evidence_limit: 100 },
  { limit: null, text: 'error_rate against the old release', state: state === 'broken' ? 'broken' : 'holding', value: errors, baseline: 0.002, lower_bound: null, requests, needed: 300, evidence: state === 'broken' ? 18_422 : 1.3, evidence_limit: 100 },
];

const event = (name, from, to, state = 'succeeded', more = {}) => ({ name, state, started_at: from === null ? null : at(from), finished_at: to === null ? null : at(to), problem: null, log_tail: null, ...more });
const set = (id, from, state = 'succeeded') => ({ id, state, events: [event('Install', from, from + 4), event('HealthCheck', from + 4, from + 7), event('AllowTestTraffic', from + 7, from + 8), event('AllowTraffic', from + 8, null, state === 'succeeded' ? 'succeeded' : 'in_progress')] });
const commits = (...list) => ({ state: 'known', count: list.length, items: list.map(([n, title, author]) => ({ sha: sha(n), title, author, since: at(-3000 + n) })) });

const view = (id, more) => ({
  kind: 'deployment', id, environment: 'production', service: 'web', sequence: id, purpose: 'ship', release: release(80), replaces: release(78), strategy: canary,
  strategy_text: 'canary 10 %, 50 %', status: 'finished', conclusion: 'success', state: 'succeeded', reason: null, trouble: null, intended_weight: null, measured_weight: null, verdict: null,
  approval, run: 80, job: 'job-web', requested_by: 'pipeyard', rollback_of: null, rolled_back_to: null,
  created_at: at(1500), started_at: at(1502), first_traffic_at: at(1512), finished_at: at(1720),
  provider_id: 'd-7QK2M9XAB', provider_status: 'Succeeded', steps: [], health: [], otherwise: 'rollback', targets: [], samples: [], timeline: [], commits: commits([11, 'Show the cart total with tax', 'Mina Park']), incidents: [], ...more,
});

const line = (n, t, who, code, message) => ({ n, at: at(t), who, code, message });

export const deployments = [
  view(16, {
    service: 'worker', strategy: { rolling: { batch: { percent: 25 } } }, strategy_text: 'rolling 25 % at a time', release: release(86), status: 'queued', conclusion: null, state: 'awaiting_approval',
    reason: { code: 'awaiting_approval', message: 'needs the approval of Mina Park or Jonas Lind' }, approval: { ...approval, needed: true, count: 1, missing: 1, who: 'Mina Park or Jonas Lind', rule: 'accepts[0]: acme/shop, branches main, by push' }, requested_by: 'Mina Park', run: 86,
    created_at: at(3500), started_at: null, first_traffic_at: null, finished_at: null, provider_id: null, provider_status: null,
    timeline: [line(1, 3500, 'Mina Park', 'requested', 'asked for it by a push to main')], commits: { state: 'pending', count: 0, items: [] },
  }),
  view(15, {
    release: release(81), replaces: release(80), conclusion: 'failure', state: 'rolled_back', rolled_back_to: 14, created_at: at(2900), started_at: at(2902), first_traffic_at: at(2912), finished_at: at(2951),
    intended_weight: 0, measured_weight: 0, verdict: { verdict: 'broken', code: 'limit_broken', message: 'error_rate 8.2 % (41 of 500) exceeds 1 %: lower bound 5.4 %, after 31 s at 10 %', at: at(2943) },
    reason: { code: 'rolled_back', message: 'The judge found it broken; all traffic is back on deployment 14.' }, provider_status: 'Stopped',
    steps: [{ weight: 10, hold_seconds: 60, judged_seconds: 31, status: 'running', measured_weight: 9.8, started_at: at(2912) }, { weight: 50, hold_seconds: 120, judged_seconds: 0, status: 'queued', measured_weight: null, started_at: null }, { weight: 100, hold_seconds: 0, judged_seconds: 0, status: 'queued', measured_weight: null, started_at: null }],
    health: health(0.082, 121, 'broken', 500), samples: samples(2912, 40, (t) => (t > 32 ? 0 : 10), 0.08, 20), targets: [set('web-blue', 2400), { ...set('web-green', 2903), state: 'failed' }], incidents: [3],
    timeline: [line(1, 2900, 'pipeyard', 'requested', 'asked for it: run 81, deploy web'), line(2, 2902, 'pipeyard', 'started', 'asked the provider to start d-7QK2M9XAB'), line(3, 2911, 'provider', 'ready', 'says that 2 new containers are healthy'), line(4, 2912, 'pipeyard', 'weight_set', 'set the weight to 10 %'),
      line(5, 2943, 'judge', 'verdict', 'broken: error_rate 8.2 % (41 of 500) exceeds 1 %: lower bound 5.4 %'), line(6, 2944, 'pipeyard', 'rolling_back', 'sends all traffic back to deployment 14'), line(7, 2951, 'provider', 'rolled_back', 'stopped the deployment; the old containers have all traffic')],
    commits: commits([21, 'Round prices half to even in the cart total', 'Mina Park'], [22, 'Tidy the totals', 'Jonas Weber']),
  }),
  view(14, {
    status: 'running', conclusion: null, state: 'shifting', intended_weight: 50, measured_weight: 49.3, finished_at: null, created_at: at(3420), started_at: at(3422), first_traffic_at: at(3432), provider_status: 'Ready',
    reason: { code: 'judging', message: 'Judging at 50 %: 2 of 2 limits hold, 48 s to go.' },
    steps: [{ weight: 10, hold_seconds: 60, judged_seconds: 60, status: 'finished', measured_weight: 10.2, started_at: at(3432) }, { weight: 50, hold_seconds: 120, judged_seconds: 72, status: 'running', measured_weight: 49.3, started_at: at(3495) }, { weight: 100, hold_seconds: 0, judged_seconds: 0, status: 'queued', measured_weight: null, started_at: null }],
    health: health(0.0031, 104, 'holding', 4210), samples: samples(3432, 165, (t) => (t < 63 ? 10 : 50), 0.003, 5), targets: [set('web-blue', 2400), set('web-green', 3423, 'in_progress')],
    timeline: [line(1, 3420, 'pipeyard', 'requested', 'asked for it: run 80, deploy web'), line(2, 3422, 'pipeyard', 'started', 'asked the provider to start d-4HJ8P2LQC'), line(3, 3432, 'pipeyard', 'weight_set', 'set the weight to 10 %'), line(4, 3495, 'judge', 'step_held', 'all limits held for 60 s at 10 %'), line(5, 3495, 'pipeyard', 'weight_set', 'set the weight to 50 %')],
  }),
  view(13, {
    service: 'worker', strategy: { rolling: { batch: { percent: 25 } } }, strategy_text: 'rolling 25 % at a time', conclusion: 'failure', state: 'failed', created_at: at(2000), started_at: at(2002), finished_at: at(2066), approval: approved({ by: 'Mina Park', at: at(2001), own: true, comment: 'watching the queue' }),
    reason: { code: 'target_failed', message: 'Host yard-host-2 failed in ValidateService; the other hosts kept the release before.' }, requested_by: 'Mina Park',
    targets: [
      { id: 'yard-host-1', state: 'succeeded', events: ['ApplicationStop', 'DownloadBundle', 'BeforeInstall', 'Install', 'AfterInstall', 'ApplicationStart', 'ValidateService'].map((name, i) => event(name, 2003 + i * 2, 2005 + i * 2)) },
      { id: 'yard-host-2', state: 'failed', events: [...['ApplicationStop', 'DownloadBundle', 'BeforeInstall', 'Install', 'AfterInstall', 'ApplicationStart'].map((name, i) => event(name, 2023 + i * 2, 2025 + i * 2)),
        event('ValidateService', 2036, 2066, 'failed', { problem: 'ScriptFailed: scripts/validate.sh ended with exit code 1', log_tail: '[stdout]waiting for the worker on :9100\n[stderr]curl: (7) Failed to connect to 127.0.0.1 port 9100: Connection refused\n[stderr]curl: (7) Failed to connect to 127.0.0.1 port 9100: Connection refused\n[stderr]the worker never answered' })] },
      { id: 'yard-host-3', state: 'skipped', events: [event('ApplicationStop', null, null, 'skipped')] },
    ],
    timeline: [line(1, 2000, 'Mina Park', 'requested', 'asked for it by a push to main'), line(2, 2001, 'Mina Park', 'approved', 'approved it: “watching the queue” (their own change)'), line(3, 2002, 'pipeyard', 'started', 'asked the provider to start d-1AB2C3D4E'), line(4, 2066, 'provider', 'failed', 'says that too many hosts failed')],
  }),
  view(12, { release: release(78), replaces: release(76), created_at: at(1500), verdict: { verdict: 'healthy', code: 'all_limits_held', message: 'all limits held: error_rate 0.2 % (11 of 5,480), p95 96 ms', at: at(1700) }, health: health(0.002, 96, 'holding', 5480), samples: samples(1512, 200, (t) => (t < 63 ? 10 : t < 190 ? 50 : 100), 0.002),
    steps: [[10, 60, 10.1], [50, 120, 50.4], [100, 0, 100]].map(([weight, hold, measured]) => ({ weight, hold_seconds: hold, judged_seconds: hold, status: 'finished', measured_weight: measured, started_at: at(1512) })), targets: [set('web-green', 1503)],
    timeline: [line(1, 1500, 'pipeyard', 'requested', 'asked for it: run 78, deploy web'), line(2, 1720, 'judge', 'verdict', 'healthy: all limits held')] }),
  view(11, { purpose: 'rollback', strategy: 'all_at_once', strategy_text: 'all at once', release: release(74), replaces: release(76), requested_by: 'Jonas Weber', rollback_of: 10, run: null, created_at: at(900), started_at: at(901), finished_at: at(911) }),
  ...Array.from({ length: 10 }, (_, i) => view(10 - i, { release: release(70 - i), created_at: at(600 - i * 3000), started_at: at(602 - i * 3000), finished_at: at(790 - i * 3000), ...(i % 4 === 3 ? { state: 'superseded', conclusion: 'cancelled', started_at: null, reason: { code: 'superseded', message: 'A newer release took its place in the queue.' } } : {}) })),
];

export const environments = [
  { name: 'production', production: true, accepts: [{ repo: 'acme/shop', branches: ['main'], events: ['push'] }], approvals: { count: 1, of: ['Mina Park', 'Jonas Lind'], not_the_author: true }, freeze: [{ begin: 'Fri 17:00', end: 'Mon 08:00', zone: 'Asia/Seoul' }], frozen: null, provider: { endpoint: 'http://127.0.0.1:8471', region: 'local', credentials: 'fleet' }, services: [
    { name: 'web', spec: { listen: 8480, container: { image: 'shop-base:1', command: [], port: 8080, health_path: '/healthz', replicas: 2, env: {} }, queue: 'newest_wins' }, serving: { deployment: 12, release: release(78), since: at(1720) }, active: 14, waiting: [] },
    { name: 'worker', spec: { listen: 8481, hosts: { tags: { role: 'worker' }, count: 3, health_path: '/healthz' }, queue: 'in_order' }, serving: { deployment: 9, release: release(69), since: at(-2210) }, active: null, waiting: [16] },
  ] },
  { name: 'staging', production: false, accepts: [], approvals: { count: 0, not_the_author: false }, freeze: [], frozen: null, provider: { region: 'eu-central-1', credentials: null }, services: [
    { name: 'web', spec: { listen: 8490, container: { image: 'shop-base:1', command: [], port: 8080, health_path: '/healthz', replicas: 1, env: {} }, queue: 'newest_wins' }, serving: null, active: null, waiting: [] },
  ] },
];

export const incidents = [
  { kind: 'incident', id: 4, environment: 'production', service: 'worker', title: 'Mails are sent twice', impact_at: at(3000), detected_at: at(3100), restored_at: null, deployment: null, link: null, opened_by: 'Jonas Weber', closed_by: null },
  { kind: 'incident', id: 3, environment: 'production', service: 'web', title: 'Deployment 15 was rolled back: error_rate 8.2 % exceeds 1 %', impact_at: at(2912), detected_at: at(2943), restored_at: at(2951), deployment: 15, link: 'rollback', opened_by: 'judge', closed_by: 'pipeyard' },
  { kind: 'incident', id: 2, environment: 'production', service: 'web', title: 'Checkout answers 500 for one country', impact_at: at(-7200), detected_at: at(-6900), restored_at: at(-3300), deployment: 8, link: 'inferred', opened_by: 'Mina Park', closed_by: 'Mina Park' },
];

function dora(q) {
  const by = q.get('by') ?? 'day';
  const since = q.get('since') ?? '28d';
  const days = since.endsWith('w') ? Number.parseInt(since, 10) * 7 : Number.parseInt(since, 10);
  const every = by === 'day' ? 1 : by === 'week' ? 7 : 30;
  const until = Date.parse(at(3600));
  const from = until - days * 86_400_000;
  seed = 7;
  const buckets = (make) => Array.from({ length: Math.ceil(days / every) }, (_, i) => ({ start: new Date(from + i * every * 86_400_000).toISOString(), ...make(i), provisional: i * every >= days - 7 }));
  const gap = (i) => i % 7 > 4;
  const metric = (name, title, unit, value, n, more) => ({ name, title, unit, value, n, numerator: null, previous: null, previous_n: 0, percentiles: {}, rows: [], rows_total: 0, buckets: [], ...more });
  const row = (deployment, t, counts, reason, value = null, more = {}) => ({ deployment, incident: null, commit: null, at: at(t), value, counts, reason, ...more });
  return {
    kind: 'dora', environment: q.get('env') || null, service: q.get('service') || null, since: new Date(from).toISOString(), until: new Date(until).toISOString(), by,
    metrics: [
      metric('deployment_frequency', 'Deployment frequency', 'per_day', 1.6, 44, { previous: 1.1, previous_n: 31, buckets: buckets((i) => { const n = gap(i) ? 0 : Math.floor(random() * 4); return { value: n, n }; }), rows_total: 3,
        rows: [row(15, 2951, 'excluded', 'aborted after it had traffic: a failure, not a deployment'), row(12, 1720, 'counted', 'succeeded: all traffic on it'), row(11, 911, 'excluded', 'a rollback is no deployment')] }),
      metric('change_lead_time', 'Change lead time', 'seconds', 8040, 121, { previous: 9900, previous_n: 88, percentiles: { p75: 20_400, p90: 81_000, p95: 172_000 }, buckets: buckets((i) => (gap(i) ? { value: null, n: 0 } : { value: 3000 + random() * 12_000, n: 4 })), rows_total: 2,
        rows: [row(12, 1720, 'counted', 'author date to all traffic', 4220, { commit: sha(11) }), row(12, 1720, 'excluded', 'a merge commit', null, { commit: sha(12) })] }),
      metric('change_fail_rate', 'Change fail rate', 'ratio', 0.0652, 46, { numerator: 3, previous: 0.0313, previous_n: 32, buckets: buckets((i) => (gap(i) ? { value: null, n: 0 } : { value: i % 6 === 4 ? 0.5 : 0, n: 2 })), rows_total: 4,
        rows: [row(15, 2951, 'numerator', 'canary aborted after it had traffic: error_rate 8.2 % exceeds 1 %'), row(13, 2066, 'numerator', 'failed on a host after others had it'), row(12, 1720, 'counted', 'succeeded'), row(11, 911, 'excluded', 'a rollback is not judged again')] }),
      metric('failed_deployment_recovery_time', 'Failed deployment recovery time', 'seconds', 39, 3, { previous: null, previous_n: 0, percentiles: { p75: 64, p90: 1240, p95: 1240 }, buckets: buckets((i) => (i % 9 === 4 ? { value: 30 + random() * 80, n: 1 } : { value: null, n: 0 })), rows_total: 1,
        rows: [row(15, 2951, 'counted', 'first traffic to the old release everywhere', 39, { incident: 3 })] }),
      metric('rework_rate', 'Rework rate', 'ratio', 0.0426, 47, { numerator: 2, previous: 0.0625, previous_n: 32, buckets: buckets((i) => (gap(i) ? { value: null, n: 0 } : { value: i % 11 === 3 ? 0.33 : 0, n: 2 })), rows_total: 1, rows: [row(11, 911, 'numerator', 'a rollback by Jonas Weber')] }),
      metric('time_to_restore', 'Time to restore (MTTR)', 'seconds', null, 0, { previous: 3900, previous_n: 1, buckets: buckets(() => ({ value: null, n: 0 })) }),
    ],
    notes: ['The last 7 days are provisional: incidents that are opened later may still change them.', 'Two services are blended; look at one for its own numbers.'],
  };
}

const LIST = ['provider_id', 'provider_status', 'steps', 'health', 'otherwise', 'targets', 'samples', 'timeline', 'commits', 'incidents'];
const short = (d) => Object.fromEntries(Object.entries(d).filter(([k]) => !LIST.includes(k)));

/** Answers what belongs to deployments; false if the path is another's. */
export async function handle(state, { method, path, q, body, refuse, send }) {
  let m;
  if (path === '/api/environments') return send(200, environments) ?? true;
  if (path === '/api/dora') return send(200, dora(q)) ?? true;
  if (path === '/api/deployments') {
    const before = Number(q.get('before') ?? Infinity);
    const all = state.deployments.filter((d) => d.id < before && (!q.get('env') || d.environment === q.get('env')) && (!q.get('service') || d.service === q.get('service')));
    return send(200, { items: all.slice(0, 50).map(short) }) ?? true;
  }
  if ((m = /^\/api\/deployments\/(\d+|latest)(?:\/(approve|abort|promote))?$/.exec(path))) {
    const d = m[1] === 'latest' ? state.deployments[0] : state.deployments.find((x) => x.id === Number(m[1]));
    if (!d) refuse(404, 'deployment_not_found', `There is no deployment ${m[1]}.`, 'pipectl deploy list');
    if (method === 'GET') return send(200, d) ?? true;
    const { comment } = await body();
    const end = { approve: ['running', null, 'starting'], abort: ['finished', 'cancelled', d.started_at ? 'rolled_back' : 'cancelled'], promote: ['running', null, 'completing'] }[m[2]];
    if (d.status === 'finished') refuse(409, 'deployment_finished', `Deployment ${d.id} is over.`);
    [d.status, d.conclusion, d.state] = end;
    d.reason = null;
    if (m[2] === 'approve') d.approval = approved({ by: 'Mina Park', at: new Date().toISOString(), own: true, comment: comment ?? null });
    d.timeline.push({ n: d.timeline.length + 1, at: new Date().toISOString(), who: 'Mina Park', code: m[2], message: `${m[2]}${comment ? `: “${comment}”` : ''}` });
    return send(200, short(d)) ?? true;
  }
  if ((m = /^\/api\/environments\/([^/]+)\/([^/]+)\/rollback$/.exec(path))) return send(201, short(state.deployments.find((d) => d.id === 11))) ?? true;
  if (path === '/api/incidents' && method === 'GET') return send(200, state.incidents.filter((i) => q.get('open') !== 'true' || i.restored_at === null)) ?? true;
  if (path === '/api/incidents') {
    const b = await body();
    const incident = { kind: 'incident', id: state.incidents.length + 2, environment: b.environment, service: b.service, title: b.title, impact_at: b.impact_at ?? new Date().toISOString(), detected_at: new Date().toISOString(), restored_at: null, deployment: b.deployment ?? null, link: b.deployment ? 'manual' : null, opened_by: 'Mina Park', closed_by: null };
    state.incidents.unshift(incident);
    return send(201, incident) ?? true;
  }
  if ((m = /^\/api\/incidents\/(\d+)\/close$/.exec(path))) {
    const incident = state.incidents.find((i) => i.id === Number(m[1]));
    Object.assign(incident, { restored_at: new Date().toISOString(), closed_by: 'Mina Park' });
    return send(200, incident) ?? true;
  }
  return false;
}
