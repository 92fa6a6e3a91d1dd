// The web UI on a real server. `PIPECTL=path/to/pipectl` makes an installation of its own, with jobs
// that write a long log, a hostile one and a slow one; the server is killed and started again.
// `BASE_URL` and `LOGIN_CODE` visit a server that runs already: every page is opened and checked, and
// with `SHOTS_DIR` photographed.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { openBrowser, sideways } from './browser.mjs';
import { Installation, until } from './installation.mjs';
import { shoot } from './shots.mjs';

const own = process.env.PIPECTL !== undefined;
const given = process.env.BASE_URL !== undefined;
const skip = own ? false : 'PIPECTL is not set';

const ESC = '\u001b';
const HOSTILE = [
  '<script>window.pwned = 1</script>', '<img src=x onerror="window.pwned = 2">', `${ESC}]0;title\u0007after a title`,
  `${ESC}]8;;javascript:window.pwned=3${ESC}\\a link${ESC}]8;;${ESC}\\`, '10%\r50%\r100% done', `${ESC}[31mred${ESC}[0m plain`, '한글 로그 줄', '</div></body><h1>out</h1>', 'the end',
].join('\n');

const PIPELINE = `
jobs:
  big:
    image: none
    run: awk 'BEGIN { for (i = 1; i <= 100000; i++) print "line " i " of 100000" }'
  hostile:
    image: none
    run: cat hostile.txt
  broken:
    image: none
    run:
      - echo before
      - echo about to fail; exit 7
    tests: report.xml
  after:
    needs: broken
    image: none
    run: echo never
`;

const REPORT = `<testsuites>
<testsuite name="cart">
<testcase name="is empty at first" time="0.5"/>
<testcase name="takes a discount once" file="src/cart.sh" line="7" time="1.25"><failure message="80 is not 90">expected 90
got &lt;b&gt;80&lt;/b&gt;</failure></testcase>
</testsuite>
</testsuites>
`;

const SLOW = `
jobs:
  slow:
    image: none
    run: i=0; while [ $i -lt 2500 ]; do i=$((i + 1)); echo "slow line $i"; [ $((i % 10)) -ne 0 ] || sleep 0.1; done
`;

const ENVIRONMENTS = `
environments:
  production:
    production: true
    provider: {endpoint: "http://127.0.0.1:9", region: local, credentials: fleet}
    services:
      web:
        listen: 8480
        container: {image: "shop-base:1", port: 8080, health_path: /healthz, replicas: 2}
`;

let pipeyard;
let url;
let browser;
let page;
let run;

before(async () => {
  if (!own && !given) throw new Error('set PIPECTL, or BASE_URL and LOGIN_CODE');
  let code = process.env.LOGIN_CODE;
  url = process.env.BASE_URL;
  if (own) {
    pipeyard = await Installation.start(process.env.PIPECTL);
    url = pipeyard.url;
    run = await pipeyard.push('Print a hundred thousand lines', { '.pipeyard.yml': PIPELINE, 'hostile.txt': HOSTILE, 'report.xml': REPORT });
    await pipeyard.finished(run);
    code = await pipeyard.code();
  }
  browser = await openBrowser({ width: 1440, height: 900 });
  page = browser.page;
  await page.goto(`${url}/login#code=${code}`);
  await page.click('button.main');
  await page.waitForURL('**/runs');
}, { timeout: 300_000 });

after(async () => {
  await browser?.close();
  await pipeyard?.close();
});

const row = (n) => page.locator(`.row[data-n="${n}"]`);
const text = (n) => row(n).locator('.text');
const open = async (path) => {
  await page.goto('about:blank');
  await page.goto(url + path);
};
const log = async (path) => {
  await open(path);
  await page.locator('.row').first().waitFor();
};
const settled = () => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
const onScreen = (n) => page.evaluate((k) => {
  const element = document.querySelector(`.row[data-n="${k}"]`);
  if (!element) return false;
  const box = element.getBoundingClientRect();
  const frame = document.querySelector('.scroll').getBoundingClientRect();
  return box.top >= frame.top - 1 && box.bottom <= frame.bottom + 1;
}, n);
/** The number of the row that shows exactly this. */
const numberOf = (words) => page.evaluate((w) => Number([...document.querySelectorAll('.row')].find((r) => r.querySelector('.text').textContent === w)?.dataset.n ?? 0), words);

test('a push appears in the list, and the failed run opens on what failed', { skip }, async () => {
  await open('/runs');
  await page.getByText('Print a hundred thousand lines').click();
  await page.waitForURL(`**/runs/${run}`);
  await page.locator('.jobs [aria-current]', { hasText: 'broken' }).waitFor();
  await page.locator('.text', { hasText: /^about to fail$/ }).waitFor();
  await page.getByText('exit 7').first().waitFor();
  await page.locator('.jobs a', { hasText: 'after' }).click();
  await page.locator('.reason', { hasText: 'Skipped' }).waitFor();
});

test('the tests of a failed job are shown by name', { skip }, async () => {
  await open(`/runs/${run}/broken`);
  await page.getByRole('link', { name: 'Tests 1 of 2 failed' }).click();
  const failed = page.getByRole('region', { name: 'Failed tests' });
  await failed.getByText('takes a discount once').waitFor();
  await failed.getByText('src/cart.sh:7').waitFor();
  await failed.getByText('got <b>80</b>').waitFor();
  await page.getByRole('region', { name: 'Suites' }).locator('tbody tr', { hasText: 'cart' }).waitFor();
});

test('100,000 lines open, scroll and are all there', { skip }, async (t) => {
  await page.goto('about:blank');
  const start = performance.now();
  await log(`/runs/${run}/big`);
  await page.locator('.text', { hasText: /^line 1 of 100000$/ }).waitFor();
  t.diagnostic(`first lines of 100,000 on the screen after ${Math.round(performance.now() - start)} ms`);
  await page.locator('.scroll').focus();
  await page.keyboard.press('End');
  await page.locator('.text', { hasText: /^line 100000 of 100000$/ }).waitFor();
  assert.ok((await page.locator('.row').count()) < 200);
  const frames = await page.evaluate(async () => {
    const scroller = document.querySelector('.scroll');
    const times = [];
    let last = performance.now();
    for (let i = 0; i < 120; i += 1) {
      scroller.scrollTop = (scroller.scrollHeight * ((i * 37) % 100)) / 100;
      await new Promise((done) => requestAnimationFrame(done));
      const now = performance.now();
      times.push(now - last);
      last = now;
    }
    return times.sort((a, b) => a - b);
  });
  t.diagnostic(`120 jumps over the log: frame p50 ${frames[60].toFixed(1)} ms, p99 ${frames[118].toFixed(1)} ms`);
  await page.keyboard.press('Home');
  await page.locator('.text', { hasText: /^line 1 of 100000$/ }).waitFor();
});

test('search finds every line on the server', { skip }, async () => {
  await log(`/runs/${run}/big`);
  await page.keyboard.press('/');
  await page.getByRole('textbox', { name: 'Search the whole log' }).fill('line 9999');
  await page.keyboard.press('Enter');
  await page.locator('.found', { hasText: '1 of 11' }).waitFor();
  await page.locator('.text', { hasText: /^line 9999 of 100000$/ }).waitFor();
});

test('a link to a line points at the same line after the server was killed', { skip }, async () => {
  await log(`/runs/${run}/big`);
  await page.locator('.scroll').evaluate((e) => { e.scrollTop = e.scrollHeight * 0.7; });
  const words = 'line 70000 of 100000';
  const n = await until('line 70000', () => numberOf(words).then((x) => x || undefined), 15);
  await row(n).locator('.n').click();
  const link = page.url();
  assert.match(link, new RegExp(`#L${n}$`));
  await pipeyard.kill('server');
  await pipeyard.startServer();
  await page.goto('about:blank');
  await page.goto(link);
  await text(n).filter({ hasText: words }).waitFor();
  assert.equal(await text(n).textContent(), words);
  assert.ok(await onScreen(n));
});

test('a running log follows, keeps its place when scrolled, and resumes after the server was killed', { skip }, async () => {
  const slow = await pipeyard.push('Write slowly', { '.pipeyard.yml': SLOW });
  await page.goto('about:blank');
  await open(`/runs/${slow}/slow`);
  await page.locator('.text', { hasText: /^slow line 100$/ }).waitFor();
  await page.locator('.total', { hasText: 'following' }).waitFor();
  await page.mouse.move(900, 600);
  await page.mouse.wheel(0, -900);
  await page.getByRole('button', { name: 'Follow the end' }).waitFor();
  const top = await page.evaluate(() => document.querySelector('.scroll').scrollTop);
  const total = () => page.locator('.total').textContent().then((s) => Number(s.replace(/[^0-9]/g, '')));
  const before = await total();
  await until('more lines', async () => (await total()) > before + 100);
  assert.equal(await page.evaluate(() => document.querySelector('.scroll').scrollTop), top, 'not a pixel of drift');
  await page.getByRole('button', { name: 'Follow the end' }).click();
  await pipeyard.kill('server');
  await page.locator('.total', { hasText: 'connection lost' }).waitFor();
  await pipeyard.startServer();
  await pipeyard.finished(slow);
  await page.locator('.text', { hasText: /^slow line 2500$/ }).waitFor({ timeout: 30_000 });
  const seen = await page.evaluate(() => [...document.querySelectorAll('.row')].map((r) => [Number(r.dataset.n), r.querySelector('.text').textContent]).filter(([, w]) => w.startsWith('slow line')));
  seen.forEach(([n, words], i) => {
    assert.equal(n, seen[0][0] + i);
    assert.equal(Number(words.slice(10)) - n, Number(seen[0][1].slice(10)) - seen[0][0], 'nothing lost, nothing doubled');
  });
  await page.locator('.steps .took', { hasText: /^[1-9]\d+ s$|^\d m \d\d s$/ }).waitFor();
});

test('hostile text stays text', { skip }, async () => {
  await log(`/runs/${run}/hostile`);
  await page.locator('.text', { hasText: /^the end$/ }).waitFor();
  const found = await page.evaluate(() => ({
    pwned: window.pwned, title: document.title, odd: document.querySelectorAll('.text *:not(span)').length,
    lines: [...document.querySelectorAll('.text')].map((e) => e.textContent),
  }));
  assert.equal(found.pwned, undefined);
  assert.equal(found.odd, 0);
  assert.match(found.title, /^Run \d+ \/ hostile/);
  for (const line of ['<script>window.pwned = 1</script>', 'after a title', 'a link', '100% done', 'red plain', '한글 로그 줄', '</div></body><h1>out</h1>']) assert.ok(found.lines.includes(line), `${line} in ${found.lines.join('|')}`);
});

test('a page that doesn’t compile shows its line', { skip }, async () => {
  const bad = await pipeyard.push('Misspell a key', { '.pipeyard.yml': 'jobs:\n  test:\n    image: none\n    rum: echo hi\n' });
  await open(`/runs/${bad}`);
  await page.getByText('The pipeline file doesn’t compile').waitFor();
  await page.locator('pre .caret').first().waitFor();
});

test('a secret is set and never shown; a repository that can’t be fetched says so', { skip }, async () => {
  await open('/secrets');
  await page.getByRole('button', { name: 'Set a secret' }).click();
  await page.getByRole('dialog').getByLabel('Name').fill('API_KEY');
  await page.getByRole('dialog').getByLabel('For').selectOption({ label: 'every repository' });
  await page.getByRole('dialog').getByLabel('Value').fill('a-long-secret-value');
  await page.getByRole('dialog').getByRole('button', { name: 'Set' }).click();
  await page.locator('tr', { hasText: 'API_KEY' }).waitFor();
  assert.ok(!(await page.content()).includes('a-long-secret-value'));
  await open('/repos');
  await page.getByRole('button', { name: 'Add a repository' }).click();
  await page.getByRole('dialog').getByLabel('Path on the server, or URL').fill('/nowhere/at/all.git');
  await page.getByRole('dialog').getByRole('button', { name: 'Add' }).click();
  await page.getByRole('dialog').getByRole('alert').waitFor();
  await page.keyboard.press('Escape');
});

test('an incident that is opened and closed in the page is in the metrics with its reason', { skip }, async () => {
  const file = join(pipeyard.dir, 'environments.yml');
  await writeFile(file, ENVIRONMENTS);
  await pipeyard.pipectl('envs', 'apply', file);
  await open('/environments');
  await page.getByText('2 containers of shop-base:1').waitFor();
  await open('/deployments');
  await page.getByText('Nothing serves yet.').waitFor();
  await open('/incidents');
  await page.getByRole('button', { name: 'Open an incident' }).click();
  await page.getByRole('dialog').getByLabel('What users see').fill('Checkout fails <b>');
  await page.getByRole('dialog').getByRole('button', { name: 'Open' }).click();
  const incident = page.locator('tr', { hasText: 'Checkout fails <b>' });
  await incident.getByRole('button', { name: 'Close' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Service is restored' }).click();
  await incident.getByText('restored').waitFor();
  await open('/dora');
  const card = page.locator('.metric', { hasText: 'restore' }).last();
  await card.getByText('1 incident', { exact: true }).waitFor();
  await card.getByRole('button', { name: /Show 1 row/ }).click();
  await page.locator('.rows tr', { hasText: 'incident 1' }).waitFor();
  assert.equal(await page.locator('.metric').count(), 6);
  for (const window of ['7d', '13w', '52w']) {
    await page.getByLabel('Window').selectOption(window);
    await page.waitForURL(`**since=${window}**`);
    await card.getByText('1 incident', { exact: true }).waitFor();
    assert.equal(await page.getByRole('alert').count(), 0);
  }
  await open('/audit');
  await page.locator('tr', { hasText: 'incident.open' }).waitFor();
});

test('what failed is rerun by one key, and the run’s page follows', { skip }, async () => {
  await open(`/runs/${run}`);
  await page.getByRole('button', { name: 'Rerun failed' }).waitFor();
  await page.keyboard.press('r');
  await page.locator('.jobs a', { hasText: 'broken' }).getByText('×2').waitFor();
});

test('every page opens, none scrolls sideways at 360 pixels', async () => {
  for (const width of [1440, 360]) {
    await page.setViewportSize({ width, height: 800 });
    for (const path of ['/runs', '/deployments', '/dora', '/incidents', '/environments', '/runners', '/repos', '/secrets', '/audit', ...(run ? [`/runs/${run}`, `/runs/${run}?overview`] : [])]) {
      await open(path);
      await page.waitForFunction(() => document.querySelector('main h1') && !/^Loading/m.test(document.querySelector('main').innerText));
      assert.equal(await sideways(page), 0, `${path} at ${width}`);
    }
  }
  await page.setViewportSize({ width: 1440, height: 900 });
});

test('pictures of every page', { skip: process.env.SHOTS_DIR ? false : 'SHOTS_DIR is not set' }, async () => {
  const code = own ? await pipeyard.code() : process.env.SHOTS_CODE;
  assert.ok(code, 'SHOTS_CODE is a second login code, for the pictures');
  const codes = own ? async () => pipeyard.code() : async () => code;
  const pages = [['runs', '/runs'], ...(run ? [['run-failed', `/runs/${run}`], ['run', `/runs/${run}?overview`], ['log', `/runs/${run}/big#L73512`]] : [['run', '/runs/latest']]),
    ['deployments', '/deployments'], ['deployment', '/deployments/latest'], ['dora', '/dora'], ['incidents', '/incidents'], ['environments', '/environments'], ['runners', '/runners'], ['repos', '/repos'], ['secrets', '/secrets']];
  await shoot(process.env.SHOTS_DIR, url, codes, pages);
});

test('nothing broke the security policy and nothing failed in the page', () => {
  assert.deepEqual(browser.troubles, []);
});
