// What the mock server answers, in the shapes of the real API. Times hang on one fixed base, so that
// pictures and tests are the same on every day but for ages.

export const BASE = Date.now() - 3_600_000;
export const at = (seconds) => new Date(BASE + seconds * 1000).toISOString();

const sha = (n) => n.toString(16).padStart(4, '0').repeat(10);

export const repos = [
  { id: 'r1', name: 'shop', forge: 'git', url: '/srv/git/shop.git', default_branch: 'main', hook_path: '/hooks/git/0192f0c1', hook: '0192f0c1', created_at: at(-90000), problem: null },
  { id: 'r2', name: 'team/billing', forge: 'github', url: 'https://github.com/example/billing.git', default_branch: 'main', hook_path: '/hooks/github/0192f0c2', hook: '0192f0c2', created_at: at(-80000),
    problem: { code: 'fetch_failed', message: 'Can’t fetch https://github.com/example/billing.git: the host could not be resolved. The last good fetch was 2 h ago.' } },
];

const run = (id, more) => ({
  kind: 'run', id, repo: 'shop', pipeline: 'pipeyard', event: 'push', branch: 'main', pull_request: null, commit: sha(id * 977),
  title: `Change ${id}`, author: 'Mina Park', status: 'finished', conclusion: 'success', reason: null, held: false,
  created_at: at(id * 30), started_at: at(id * 30 + 2), finished_at: at(id * 30 + 64), ...more,
});

const step = (n, name, from, to, line, more = {}) => ({
  step: n, name, status: to === null ? 'running' : 'finished', conclusion: to === null ? null : 'success', exit_code: to === null ? null : 0,
  started_at: at(from), finished_at: to === null ? null : at(to), first_line: line, ...more,
});

const attempt = (epoch, from, to, conclusion, more = {}) => ({
  epoch, runner: 'yard-1', started_at: at(from), finished_at: to === null ? null : at(to), conclusion, reason: null, log_bytes: 81_234, log_removed_at: null, steps: [], tests: null, ...more,
});

let jobNumber = 0;
const job = (name, needs, more) => withSteps({
  id: `job-${(jobNumber += 1)}`, name, node: 'job', needs, status: 'finished', conclusion: 'success', reason: null, epoch: 1,
  started_at: at(2400), finished_at: at(2460), steps: [], tests: null, attempts: [attempt(1, 2400, 2460, 'success')], deployment: null, ...more,
});

/** The present attempt has the job's steps and tests. */
function withSteps(it) {
  for (const a of it.attempts) if (a.epoch === it.epoch) Object.assign(a, { steps: it.steps, tests: it.tests });
  return it;
}

const counts = (passed, failed, errored, skipped, flaky, duration_ms) => ({ passed, failed, errored, skipped, flaky, duration_ms });

/** What the tests of run 81 say, with hostile text where a job could put it. */
export const testReport = {
  kind: 'test_report', attempt: 2, ...counts(361, 1, 1, 4, 1, 41_720), files: 2,
  suites: [
    { name: 'shop::cart', ...counts(118, 1, 0, 0, 1, 12_400) }, { name: 'shop::stock', ...counts(40, 0, 1, 0, 0, 9_100) },
    { name: 'shop::money', ...counts(203, 0, 0, 0, 0, 220) }, { name: 'shop::later', ...counts(0, 0, 0, 4, 0, 0) },
  ],
  suites_left_out: 0,
  failures: [
    { suite: 'shop::cart', name: 'total_is_rounded_half_to_even', class: 'shop::cart', file: 'src/cart.rs', line: 88, how: 'failed',
      message: "thread 'cart::total_is_rounded_half_to_even' panicked at src/cart.rs:88:9",
      details: "thread 'cart::total_is_rounded_half_to_even' panicked at src/cart.rs:88:9:\nassertion `left == right` failed\n  left: 1235\n right: 1234", output: 'rounding 12.345\n<img src=x onerror="window.pwned = 4">', cut: false, duration_ms: 12 },
    { suite: 'shop::stock', name: 'is asked for <b>once</b>', class: 'stock.Client', file: null, line: null, how: 'errored',
      message: 'connection refused', details: '', output: '', cut: true, duration_ms: 5_004 },
  ],
  failures_left_out: 0,
  problems: [{ code: 'report_invalid', path: 'target/old/junit.xml', line: 41, message: 'it is cut off: <testcase> is never closed; only the tests before it are counted' }],
};
const { kind: _kind, suites: _suites, failures: _failures, problems: _problems, ...testSummary } = testReport;
const tests81 = { ...testSummary, problems: 1 };

/** Run 81: a failed job with three steps, a second attempt, a skipped deploy. */
const failedJobs = [
  job('lint', [], { started_at: at(2432), finished_at: at(2441), steps: [step(1, 'cargo clippy', 2432, 2441, 3)], attempts: [attempt(1, 2432, 2441, 'success')] }),
  job('test', [], {
    conclusion: 'failure', tests: tests81, epoch: 2, started_at: at(2480), finished_at: at(2527),
    reason: { code: 'step_failed', message: 'Step 2 “cargo test --locked” ended with exit code 101.' },
    steps: [
      step(1, 'cargo fetch --locked', 2480, 2484, 4), step(2, 'cargo test --locked', 2484, 2527, 41, { conclusion: 'failure', exit_code: 101 }),
      step(3, 'make report', 2527, 2527, null, { conclusion: 'skipped', exit_code: null, started_at: null, finished_at: null }),
    ],
    attempts: [
      attempt(1, 2432, 2470, 'error', { reason: { code: 'runner_lost', message: 'Runner yard-2 stopped answering; its job was offered again.' }, runner: 'yard-2',
        steps: [step(1, 'cargo fetch --locked', 2432, 2440, 4), step(2, 'cargo test --locked', 2440, 2470, 41, { conclusion: 'error', exit_code: null }), step(3, 'make report', 2470, 2470, null, { conclusion: 'skipped', exit_code: null, started_at: null, finished_at: null })] }),
      attempt(2, 2480, 2527, 'failure', { tests: tests81 }),
    ],
  }),
  job('docs', [], { started_at: at(2433), finished_at: at(2450), steps: [step(1, 'make docs', 2433, 2450, 2)], attempts: [attempt(1, 2433, 2450, 'success')] }),
  job('package', ['lint', 'test'], { conclusion: 'skipped', epoch: 0, started_at: null, finished_at: at(2528), attempts: [], reason: { code: 'need_failed', message: 'It needs test, which ended with failure.' } }),
  job('web', ['package', 'docs'], { node: 'deploy', conclusion: 'skipped', epoch: 0, started_at: null, finished_at: at(2528), attempts: [], reason: { code: 'need_failed', message: 'It needs package, which was skipped.' } }),
];

const greenJobs = [
  job('lint', [], { steps: [step(1, 'cargo clippy', 2400, 2409, 3)] }),
  job('test', [], { steps: [step(1, 'cargo fetch --locked', 2400, 2410, 4), step(2, 'cargo test --locked', 2410, 2455, 41)] }),
  job('package', ['lint', 'test'], { started_at: at(2460), finished_at: at(2466), steps: [step(1, 'make bundle', 2460, 2466, 2)], attempts: [attempt(1, 2460, 2466, 'success')] }),
  job('web', ['package'], { node: 'deploy', epoch: 0, attempts: [], deployment: 12, started_at: at(2467), finished_at: at(2700) }),
  job('worker', ['web'], { node: 'deploy', epoch: 0, attempts: [], deployment: 13, started_at: at(2701), finished_at: at(2780) }),
];

const waiting = { code: 'no_runner_with_label', message: 'No runner has the label gpu. Register one with: pipectl runner register --label gpu' };

/** 100 jobs in five layers, for the list first view. */
const manyJobs = Array.from({ length: 100 }, (_, i) => job(`unit-${String(i + 1).padStart(3, '0')}`, i < 20 ? [] : [`unit-${String(i - 19).padStart(3, '0')}`], i === 57
  ? { conclusion: 'failure', reason: { code: 'step_failed', message: 'Step 1 “make unit” ended with exit code 2.' }, steps: [step(1, 'make unit', 2400, 2460, 1, { conclusion: 'failure', exit_code: 2 })] }
  : i > 90 ? { status: 'running', conclusion: null, finished_at: null, steps: [step(1, 'make unit', 2400, null, 1)] } : { steps: [step(1, 'make unit', 2400, 2460, 1)] }));

const rendered = `error[P204]: \`nedes\` is not a key of a job
  --> .pipeyard.yml:9:5
   |
 9 |     nedes: test
   |     ^^^^^ did you mean \`needs\`?
   |
   = allowed here: artifacts, env, image, needs, retry, run, secrets, services, timeout`;

export const runs = [
  { ...run(88, { title: 'Print a hundred thousand lines', author: 'Jonas Weber' }), jobs: [job('big', [], { steps: [step(1, 'seq', 2400, 2460, 1)] }), job('huge', []), job('hostile', [], { steps: [step(1, 'sh hostile.sh', 2400, 2401, 1)] })], diagnostics: [] },
  { ...run(87, { title: 'Train the ranking model on the new features', branch: 'ranking', author: '김서연', status: 'queued', conclusion: null, started_at: null, finished_at: null, reason: waiting }),
    jobs: [job('train', [], { status: 'queued', conclusion: null, epoch: 0, started_at: null, finished_at: null, attempts: [], reason: waiting })], diagnostics: [] },
  { ...run(86, { title: 'Stream the invoice export instead of building it in memory', status: 'running', conclusion: null, finished_at: null, created_at: at(3540), started_at: at(3542) }),
    jobs: [job('lint', [], { started_at: at(3542), finished_at: at(3550), steps: [step(1, 'cargo clippy', 3542, 3550, 3)] }),
      job('test', [], { status: 'running', conclusion: null, started_at: at(3542), finished_at: null, steps: [step(1, 'sh slow.sh', 3543, null, 2)], attempts: [attempt(1, 3542, null, null)] }),
      job('package', ['lint', 'test'], { status: 'queued', conclusion: null, epoch: 0, started_at: null, finished_at: null, attempts: [], reason: { code: 'needs', message: 'Waits for test.' } })], diagnostics: [] },
  { ...run(85, { title: 'Add a shiny banner', event: 'pull_request', pull_request: 41, author: 'drive-by', status: 'queued', conclusion: null, held: true, started_at: null, finished_at: null, reason: { code: 'held_fork', message: 'A pull request from a fork: an administrator looks at it first, then approves it.' } }),
    jobs: [job('test', [], { status: 'queued', conclusion: null, epoch: 0, started_at: null, finished_at: null, attempts: [], reason: { code: 'held_fork', message: 'The run is held.' } })], diagnostics: [] },
  { ...run(84, { title: 'Rename the package step', conclusion: 'error', started_at: null, finished_at: at(2521), reason: { code: 'pipeline_invalid', message: '.pipeyard.yml:9:5: `nedes` is not a key of a job; did you mean `needs`?' } }),
    jobs: [], diagnostics: [{ code: 'P204', severity: 'error', path: '.pipeyard.yml', line: 9, column: 5, message: '`nedes` is not a key of a job', rendered }] },
  { ...run(83, { title: 'Split the unit tests', conclusion: null, status: 'running', finished_at: null }), jobs: manyJobs, diagnostics: [] },
  { ...run(82, { title: 'Raise the checkout timeout', conclusion: 'cancelled', author: 'Jonas Weber' }), jobs: [job('test', [], { conclusion: 'cancelled', reason: { code: 'cancelled', message: 'Mina Park cancelled the run.' } })], diagnostics: [] },
  { ...run(81, { title: 'Round prices half to even in the cart total', conclusion: 'failure', reason: { code: 'job_failed', message: 'test failed: step 2 “cargo test --locked” ended with exit code 101.' } }), jobs: failedJobs, diagnostics: [] },
  { ...run(80, { title: 'Show the cart total with tax', repo: 'shop' }), jobs: greenJobs, diagnostics: [] },
  { ...run(79, { title: 'Bump the base image', repo: 'team/billing', branch: 'release/2.4', author: 'Jonas Weber' }), jobs: greenJobs, diagnostics: [] },
];

for (let id = 78; id > 0; id -= 1) {
  runs.push({ ...run(id, { title: ['Fix a typo in the receipt', 'Cache the product list', 'Remove the old basket', 'Retry the payment once'][id % 4], repo: id % 3 === 0 ? 'team/billing' : 'shop' }), jobs: greenJobs, diagnostics: [] });
}

export const artifacts = [
  { id: 'a1', run: 80, job: 'package', path: 'shop.tar.gz', size: 1_482_112, sha256: sha(4711).repeat(2).slice(0, 64), created_at: at(2466), removed_at: null },
  { id: 'a2', run: 80, job: 'test', path: 'target/coverage.html', size: 88_120, sha256: sha(815).repeat(2).slice(0, 64), created_at: at(2455), removed_at: null },
];

export const runners = [
  { id: 'n1', name: 'yard-1', labels: ['linux', 'docker'], state: 'online', version: '0.1.0', seen_at: at(3600), jobs: ['run 86 / test', 'run 83 / unit-092'] },
  { id: 'n2', name: 'yard-2', labels: ['linux', 'docker', 'big'], state: 'offline', version: '0.1.0', seen_at: at(2450), jobs: [] },
];

export const secrets = [
  { name: 'DATABASE_PASSWORD', repo: 'shop', branches: ['main'], default_branch_only: false, events: ['push'], scope: 'main; push', limited_by_upgrade: false, updated_at: at(-86400 * 3), used_at: at(2400) },
  { name: 'DEPLOY_KEY', repo: null, branches: [], default_branch_only: true, events: [], scope: 'the default branch', limited_by_upgrade: true, updated_at: at(-86400 * 40), used_at: null },
];

const ESC = '\u001b';

/** A log: how many lines it has, and each of them made when it is asked for. */
export function logOf(runId, jobName, epoch) {
  const line = (n, text, more = {}) => ({ n, at: at(2400 + n / 400), step: 1, stream: 'stdout', text, ...more });
  if (jobName === 'big') return { total: 100_000, complete: true, line: (n) => line(n, n % 10 === 0 ? `${ESC}[32mok${ESC}[0m line ${n} of 100000 ${'·'.repeat(n % 60)}` : `line ${n} of 100000`) };
  if (jobName === 'huge') return { total: 1_000_000, complete: true, line: (n) => line(n, `line ${n} of 1000000`) };
  if (jobName === 'hostile') {
    const list = [
      '<script>window.pwned = 1</script>', '<img src=x onerror="window.pwned = 2">', `${ESC}]0;title\u0007after a title`, `${ESC}]8;;javascript:window.pwned=3${ESC}\\a link${ESC}]8;;${ESC}\\`,
      `${ESC}[2J${ESC}[1;1Hcleared`, '10%\r50%\r100% done', '\u202egnp.exe reversed', `${ESC}[31mred ${ESC}[1;44mbold on blue${ESC}[0m plain`, '한글 로그 줄', '</div></body><h1>out</h1>',
      '{@html "<b>x</b>"}', `x${'y'.repeat(20_000)}z`, `${ESC}[38;5;208morange ${ESC}[38;2;120;200;255mtrue colour`, 'carried', `${ESC}[0mreset`, 'a\tb\tc',
    ];
    return { total: list.length, complete: true, line: (n) => line(n, list[n - 1]) };
  }
  if (jobName === 'test' && runId === 81) {
    const head = [['system', 0, 'Image rust:1.95 is here already.'], ['system', 0, 'Workspace ready at commit 1307a3d1.'], ['system', 0, 'Service postgres:17 is ready after 1.8 s.']];
    return {
      total: epoch === 1 ? 120 : 402, complete: true,
      line: (n) => {
        if (n <= 3) return line(n, head[n - 1][2], { stream: 'system', step: 0 });
        if (n <= 40) return line(n, `${ESC}[1m${ESC}[32m  Downloaded${ESC}[0m crate-${n} v1.${n}.0`, { stream: 'stderr' });
        if (n < 392) return line(n, `test cart::case_${n} ... ${ESC}[32mok${ESC}[m`, { step: 2 });
        const end = ['', 'failures:', '', '---- cart::total_is_rounded_half_to_even stdout ----', `${ESC}[31mthread 'cart::total_is_rounded_half_to_even' panicked at src/cart.rs:88:9:${ESC}[0m`,
          'assertion `left == right` failed', '  left: 1235', ' right: 1234', '', `test result: ${ESC}[31mFAILED${ESC}[m. 361 passed; 1 failed; 0 ignored; finished in 41.72s`, 'error: test failed, to rerun pass `--lib`'];
        return line(n, end[n - 392] ?? '', { step: 2, stream: n > 400 ? 'stderr' : 'stdout' });
      },
    };
  }
  return { total: 60, complete: true, line: (n) => line(n, n % 7 === 0 ? `${ESC}[1;34m==>${ESC}[0m stage ${n / 7}` : `working on part ${n}`) };
}

export const audit = [
  { seq: 4, at: at(3400), who: 'user', address: '10.0.0.7', actor: 'Mina Park', action: 'deployment.approve', target: 'deployment 13' },
  { seq: 3, at: at(2400), who: 'user', address: '10.0.0.7', actor: 'Jonas Weber', action: 'run.cancel', target: 'run 82' },
  { seq: 2, at: at(-86400), who: 'user', address: '10.0.0.7', actor: 'Mina Park', action: 'secret.set', target: 'DATABASE_PASSWORD of shop' },
  { seq: 1, at: at(-90000), who: 'pipeyard', address: null, actor: 'pipeyard', action: 'repo.add', target: 'shop' },
];
