// Every page against the mock: signing in, what is shown, what a person can do, keys, narrow screens.

import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';

import { openBrowser, sideways } from './browser.mjs';
import { CODE, startMock } from './mock.mjs';
import { PAGES, shoot } from './shots.mjs';

let mock;
let browser;
let page;

before(async () => {
  mock = await startMock();
  browser = await openBrowser();
  page = browser.page;
});
beforeEach(async () => {
  mock.state.calls.length = 0;
});
after(async () => {
  await browser?.close();
  await mock?.close();
});

const open = (path) => page.goto(mock.url + path);
const see = (text, options) => page.getByText(text, options).first().waitFor();
const dialog = () => page.getByRole('dialog');
const signIn = async () => {
  await open(`/login#code=${CODE}`);
  await page.click('button.main');
  await page.waitForURL('**/runs');
};

test('a page without a session asks for a login and comes back to it', async () => {
  await open('/runs/81?overview');
  await page.waitForURL('**/login?to=**');
  await page.fill('#code', 'wrong');
  await page.keyboard.press('Enter');
  await see('This code isn’t valid');
  await see('pipectl login-code');
  await page.fill('#code', CODE);
  await page.keyboard.press('Enter');
  await page.waitForURL('**/runs/81?overview');
  await see('Round prices half to even');
});

test('a login link fills the code in and leaves none of it in the address', async () => {
  await open(`/login#code=${CODE}`);
  assert.equal(await page.inputValue('#code'), CODE);
  assert.ok(!page.url().includes(CODE));
  await page.click('button.main');
  await page.waitForURL('**/runs');
});

test('a login goes to no other site', async () => {
  for (const to of ['//evil.example/x', 'https://evil.example', '/\\evil.example', 'javascript:alert(1)']) {
    await open(`/login?to=${encodeURIComponent(to)}#code=${CODE}`);
    await page.click('button.main');
    await page.waitForURL(`${mock.url}/runs`);
  }
});

test('the runs list filters by its address and goes on to older runs', async () => {
  await signIn();
  await see('Print a hundred thousand lines');
  await page.getByLabel('Repository').selectOption('team/billing');
  await page.waitForURL('**/runs?repo=team%2Fbilling');
  await page.waitForFunction(() => [...document.querySelectorAll('.branch')].every((e) => e.textContent === 'team/billing'));
  await page.getByRole('button', { name: 'Clear' }).click();
  await page.getByLabel('State').selectOption('failure');
  await page.waitForFunction(() => document.querySelectorAll('ol.panel li').length === 1);
  await page.getByLabel('State').selectOption('');
  await page.waitForFunction(() => document.querySelectorAll('ol.panel li').length === 50);
  await page.getByRole('button', { name: 'Older runs' }).click();
  await page.waitForFunction(() => document.querySelectorAll('ol.panel li').length === 88);
  await page.getByLabel('Branch').fill('no-such-branch');
  await page.keyboard.press('Enter');
  await see('No run matches these filters');
});

test('a new run appears by itself, and after a lost connection too', async () => {
  await open('/runs');
  await see('Print a hundred thousand lines');
  await page.locator('.state', { hasText: 'live' }).waitFor();
  mock.state.runs.unshift({ ...mock.state.runs[0], id: 89, title: 'Arrives live', status: 'running', conclusion: null });
  mock.emit('run.created', { run: 89 });
  await see('Arrives live');
  mock.drop();
  await page.locator('.state', { hasText: 'reconnecting' }).waitFor();
  mock.state.runs.unshift({ ...mock.state.runs[0], id: 90, title: 'Arrives in the gap' });
  await see('Arrives in the gap');
  mock.state.runs.splice(0, 2);
});

test('a run shows its graph, its jobs and its artifacts', async () => {
  await open('/runs/80');
  await see('What needs what');
  assert.equal(await page.locator('.node').count(), 5);
  assert.equal(await page.locator('.graph > svg path').count(), 4);
  await see('shop.tar.gz');
  await page.locator('.node', { hasText: 'package' }).click();
  await page.waitForURL('**/runs/80/package');
  await page.locator('.row').first().waitFor();
});

test('a run of a hundred jobs opens on its failed job and shows the list before the drawing', async () => {
  await open('/runs/83');
  await see('Step 1 “make unit” ended with exit code 2.');
  await page.keyboard.press('o');
  await see('100 jobs: the list says more than a drawing');
  const names = await page.locator('.jobs .name').allTextContents();
  assert.equal(names[0], 'unit-058');
  await page.getByRole('button', { name: 'Draw it all the same' }).click();
  assert.equal(await page.locator('.node').count(), 100);
});

test('the tests of a job are one click away, the failed ones first', async () => {
  await open('/runs/81/test');
  const parts = page.getByRole('navigation', { name: 'Parts of this attempt' });
  await parts.waitFor();
  assert.equal(await page.getByText('exit code 101').count(), 1, 'why it failed is said once');
  await parts.getByRole('link', { name: 'Tests 2 of 367 failed' }).click();
  await page.waitForURL('**/runs/81/test?attempt=2&part=tests');
  const failed = page.getByRole('region', { name: 'Failed tests' });
  await failed.getByText('total_is_rounded_half_to_even').first().waitFor();
  await failed.getByText('src/cart.rs:88', { exact: true }).waitFor();
  await failed.getByText('right: 1234').waitFor();
  assert.deepEqual(await failed.locator('summary .sr').allTextContents(), ['failed', 'errored']);
  await page.getByRole('region', { name: 'Reports with problems' }).getByText('target/old/junit.xml:41').waitFor();
  const suites = page.getByRole('region', { name: 'Suites' }).locator('tbody tr');
  assert.deepEqual(await suites.locator('.sr').allTextContents(), ['failed', 'failed', 'passed', 'skipped']);
  // What a job wrote stays text.
  assert.equal(await page.locator('.tests img, .tests b').count(), 0);
  await failed.getByText('is asked for <b>once</b>').waitFor();
  // A failed test folds away by keyboard, and the log is one click back.
  await failed.locator('summary').first().focus();
  await page.keyboard.press('Enter');
  await failed.getByText('right: 1234').waitFor({ state: 'hidden' });
  await parts.getByRole('link', { name: 'Log' }).click();
  await page.locator('.row').first().waitFor();
  // An attempt without reports has no such part.
  await open('/runs/81/test?attempt=1&part=tests');
  await page.getByText('120 lines').waitFor();
  assert.equal(await parts.count(), 0);
});

test('a pipeline that doesn’t compile shows its line and caret', async () => {
  await open('/runs/84');
  await see('The pipeline file doesn’t compile');
  await page.locator('pre .caret', { hasText: '^^^^^ did you mean' }).waitFor();
  await see('.pipeyard.yml:9:5');
});

test('a waiting job names its cause', async () => {
  await open('/runs/87/train');
  await see('No runner has the label gpu');
});

test('what failed is rerun with one key, and cancelling asks first', async () => {
  await open('/runs/81');
  await page.getByRole('button', { name: 'Rerun failed' }).waitFor();
  await page.keyboard.press('r');
  await page.getByRole('button', { name: 'Rerun failed' }).and(page.locator(':enabled')).waitFor();
  assert.deepEqual(mock.state.calls, ['POST /api/runs/81/rerun']);
  await open('/runs/86?overview');
  await page.getByRole('button', { name: 'Cancel' }).waitFor();
  await page.keyboard.press('x');
  await dialog().getByText('Cancel run 86?').waitFor();
  await page.keyboard.press('Escape');
  await dialog().waitFor({ state: 'detached' });
  assert.equal(mock.state.calls.length, 1);
  await page.keyboard.press('x');
  await dialog().getByRole('button', { name: 'Cancel the run' }).click();
  await page.locator('.about .status', { hasText: 'cancelled' }).waitFor();
});

test('a held run is approved with one key', async () => {
  await open('/runs/85');
  await see('an administrator looks at it first');
  await page.keyboard.press('a');
  await page.getByRole('button', { name: 'Approve' }).waitFor({ state: 'detached' });
  assert.deepEqual(mock.state.calls, ['POST /api/runs/85/approve']);
});

test('a failed deployment explains itself on one screen', async () => {
  await open('/deployments/15');
  await see('error_rate 8.2 % (41 of 500) exceeds 1 %');
  await see('Deployment 14');
  const track = await page.locator('.track li').allTextContents();
  assert.match(track[0], /10 %.*failure.*judged 31 s/s);
  assert.match(track[1], /skipped/);
  await page.locator('svg .limit-text', { hasText: 'limit 1' }).waitFor();
  await page.getByText('9 samples as numbers').click();
  assert.equal(await page.locator('details tbody tr').count(), 9);
  await open('/deployments/13');
  await see('the worker never answered');
  await see('the author’s own approval');
});

test('an approval names what it lets through and is kept with its reason', async () => {
  await open('/deployments/16');
  await page.getByRole('button', { name: 'Approve' }).waitFor();
  await page.keyboard.press('a');
  await dialog().getByText(/Approve [0-9a-f]{8} for production\/worker\?/).waitFor();
  await dialog().getByLabel('Why').fill('seen in staging');
  await dialog().getByRole('button', { name: 'Approve' }).click();
  await see('“seen in staging”');
  await dialog().waitFor({ state: 'detached' });
});

test('an abort names the version and the environment, and a refusal stays in the dialog', async () => {
  await open('/deployments/14');
  await page.getByRole('button', { name: 'Abort' }).click();
  await dialog().getByText(/Abort [0-9a-f]{8} on production\/web\?/).waitFor();
  const d = mock.state.deployments.find((x) => x.id === 14);
  const before = { ...d };
  d.status = 'finished';
  await dialog().getByRole('button', { name: 'Abort' }).click();
  await dialog().getByText('Deployment 14 is over.').waitFor();
  Object.assign(d, before);
  await page.keyboard.press('Escape');
});

test('deployments show what serves where and change live', async () => {
  await open('/deployments');
  await see('serves since');
  await page.locator('tr', { hasText: 'superseded' }).first().waitFor();
  mock.state.deployments.find((x) => x.id === 14).state = 'holding';
  mock.emit('deployment.changed', { deployment: 14 });
  await page.locator('tr', { hasText: 'on hold' }).waitFor();
  mock.state.deployments.find((x) => x.id === 14).state = 'shifting';
});

test('trouble with the provider is shown while it lasts', async () => {
  await open('/deployments/14');
  const d = mock.state.deployments.find((x) => x.id === 14);
  d.trouble = {
    since: d.started_at, until: d.started_at, code: 'provider_unreachable', message: 'the provider can\'t be reached: connection refused',
    doing: '10 % of the traffic stays with the new release', then: 'the verdict is inconclusive',
  };
  mock.emit('deployment.changed', { deployment: 14 });
  await see('connection refused');
  await see('10 % of the traffic stays with the new release. It is asked again until');
  d.trouble = null;
  mock.emit('deployment.changed', { deployment: 14 });
  await page.getByText('connection refused').waitFor({ state: 'detached' });
});

test('each metric shows what it rests on, its change, gaps as gaps, and its rows with reasons', async () => {
  await open('/dora');
  const card = page.locator('.metric', { hasText: 'Change fail rate' });
  await card.getByText('3 of 46 deployments').waitFor();
  await card.getByText('(worse)').waitFor();
  assert.ok((await card.locator('line.none').count()) > 0, 'empty buckets are gaps');
  assert.ok((await card.locator('.provisional').count()) > 0);
  await page.locator('.metric', { hasText: 'Time to restore' }).locator('.value', { hasText: 'no data' }).waitFor();
  await card.getByRole('button', { name: 'Show 4 rows' }).click();
  await page.waitForURL('**metric=change_fail_rate**');
  const row = page.locator('.rows tr', { hasText: 'canary aborted after it had traffic' });
  await row.getByText('counts against').waitFor();
  await row.getByRole('link', { name: 'deployment 15' }).click();
  await page.waitForURL('**/deployments/15');
  await page.goBack();
  await page.locator('.rows').waitFor();
  await page.getByLabel('Window').selectOption('13w');
  await page.waitForFunction(() => document.querySelector('.bars svg')?.querySelectorAll('g').length === 13);
});

test('an incident is opened and closed', async () => {
  await open('/incidents');
  await page.getByRole('button', { name: 'Open an incident' }).click();
  await dialog().getByLabel('What users see').fill('Search is empty <b>');
  await dialog().getByRole('button', { name: 'Open' }).click();
  const row = page.locator('tr', { hasText: 'Search is empty <b>' });
  await row.getByRole('button', { name: 'Close' }).click();
  await dialog().getByRole('button', { name: 'Service is restored' }).click();
  await row.getByText('restored').waitFor();
  await page.getByLabel('State').selectOption('open');
  await row.waitFor({ state: 'detached' });
  await page.getByLabel('State').selectOption('restored');
  await row.waitFor();
  assert.equal(await page.locator('tr', { hasText: 'Mails are sent twice' }).count(), 0);
});

test('a hook’s secret and a runner’s token are shown once', async () => {
  await open('/repos');
  await page.getByRole('button', { name: 'Add a repository' }).click();
  await dialog().getByLabel('Path on the server, or URL').fill('/srv/git/shop.git');
  await dialog().getByRole('button', { name: 'Add' }).click();
  await dialog().getByText('There is a repository shop already.').waitFor();
  await dialog().getByLabel('Path on the server, or URL').fill('/srv/git/tools.git');
  await dialog().getByRole('button', { name: 'Add' }).click();
  await dialog().getByText('s3cr3t-only-once-7f3a').waitFor();
  await page.keyboard.press('Escape');
  await page.locator('tr', { hasText: '/srv/git/tools.git' }).waitFor();
  assert.ok(!(await page.content()).includes('s3cr3t-only-once'));
  await open('/runners');
  await page.getByRole('button', { name: 'Register a runner' }).click();
  await dialog().getByText('pyr_4f1c9a0b7d').waitFor();
  await page.keyboard.press('Escape');
  await page.locator('tr', { hasText: 'yard-2' }).getByRole('button', { name: 'Remove' }).click();
  await dialog().getByRole('button', { name: 'Remove yard-2' }).click();
  await page.locator('tr', { hasText: 'yard-2' }).waitFor({ state: 'detached' });
  await see('No runner has the label gpu');
});

test('a secret goes in, is refused when short, and never comes out', async () => {
  await open('/secrets');
  await page.getByRole('button', { name: 'Set a secret' }).click();
  await dialog().getByLabel('Name').fill('API_KEY');
  await dialog().getByLabel('For').selectOption('shop');
  await dialog().getByLabel('Branches').fill('main, release/*');
  await dialog().getByLabel('Value').fill('short');
  await dialog().getByRole('button', { name: 'Set' }).click();
  await dialog().getByText('at least 8 bytes').last().waitFor();
  await dialog().getByLabel('Value').fill('a-long-secret-value');
  await dialog().getByRole('button', { name: 'Set' }).click();
  await page.locator('tr', { hasText: 'API_KEY' }).getByText('main, release/*').waitFor();
  assert.ok(!(await page.content()).includes('a-long-secret-value'));
  await page.locator('tr', { hasText: 'API_KEY' }).getByRole('button', { name: 'Remove' }).click();
  await dialog().getByRole('button', { name: 'Remove API_KEY' }).click();
  await page.locator('tr', { hasText: 'API_KEY' }).waitFor({ state: 'detached' });
});

test('the keys go everywhere and say so', async () => {
  await open('/runs');
  await see('Print a hundred thousand lines');
  for (const [keys, path] of [['g d', '/deployments'], ['g m', '/dora'], ['g i', '/incidents'], ['g e', '/environments'], ['g q', '/runners'], ['g p', '/repos'], ['g s', '/secrets'], ['g a', '/audit'], ['g r', '/runs']]) {
    for (const key of keys.split(' ')) await page.keyboard.press(key);
    await page.waitForURL(`**${path}`);
  }
  await page.keyboard.press('?');
  await dialog().getByText('Go to DORA').waitFor();
  await page.keyboard.press('Escape');
  await dialog().waitFor({ state: 'detached' });
});

test('the theme follows the system until it is chosen, and is remembered', async () => {
  await page.emulateMedia({ colorScheme: 'dark' });
  await open('/runs');
  await see('Runs');
  const ground = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  assert.equal(await ground(), 'rgb(16, 22, 27)');
  await page.keyboard.press('T');
  assert.equal(await ground(), 'rgb(242, 244, 245)');
  await page.reload();
  await see('Runs');
  assert.equal(await ground(), 'rgb(242, 244, 245)');
  await page.keyboard.press('T');
  await page.keyboard.press('T');
  await page.emulateMedia({ colorScheme: 'light' });
});

test('an error says what happened, its code and the fix', async () => {
  await open('/runs/4711');
  await page.getByRole('alert').getByText('There is no run 4711.').waitFor();
  await see('run_not_found');
  await see('pipectl runs list');
  await open('/nowhere');
  await see('There is no page here');
});

test('every status has a shape, a text and a colour', async () => {
  await open('/runs');
  await see('Print a hundred thousand lines');
  const signs = await page.evaluate(() => [...document.querySelectorAll('ol.panel li a')].slice(0, 9).map((a) => [a.querySelector('.state').textContent, a.querySelector('svg').innerHTML.replace(/<!--.*?-->/g, '')]));
  const shapes = new Map(signs.map(([text, shape]) => [text, shape]));
  assert.ok(shapes.size >= 6, [...shapes.keys()].join());
  assert.equal(new Set(shapes.values()).size, shapes.size, 'no two states share a shape');
});

test('no page scrolls sideways at 360 pixels', async () => {
  await page.setViewportSize({ width: 360, height: 740 });
  for (const [name, path] of PAGES) {
    await open(path);
    await page.waitForFunction(() => document.querySelector('main') && !/^Loading/m.test(document.querySelector('main').innerText));
    assert.equal(await sideways(page), 0, name);
  }
  await open('/deployments/14');
  await page.getByRole('button', { name: 'Abort' }).waitFor();
  await page.getByRole('button', { name: 'Menu' }).click();
  await page.getByRole('link', { name: 'Secrets' }).click();
  await page.waitForURL('**/secrets');
  await page.setViewportSize({ width: 1280, height: 800 });
});

test('an empty installation says what to do next', async () => {
  const empty = await startMock();
  Object.assign(empty.state, { repos: [], runs: [], secrets: [], runners: [], deployments: [], incidents: [] });
  await page.goto(`${empty.url}/login#code=${CODE}`);
  await page.click('button.main');
  for (const [path, command] of [['/runs', 'pipectl repos add'], ['/repos', 'pipectl repos add'], ['/runners', 'pipectl runner'], ['/secrets', 'pipectl secrets set'], ['/incidents', 'pipectl incidents open'], ['/deployments', 'git push']]) {
    await page.goto(empty.url + path);
    await page.locator('.empty', { hasText: command }).waitFor();
  }
  await empty.close();
});

test('signing out ends it', async () => {
  await signIn();
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.waitForURL('**/login');
  await open('/runs');
  await page.waitForURL('**/login**');
});

test('nothing broke the security policy and nothing failed in the page', () => {
  assert.deepEqual(browser.troubles, []);
});

test('pictures of every page', { skip: process.env.SHOTS_DIR ? false : 'SHOTS_DIR is not set' }, async () => {
  await shoot(process.env.SHOTS_DIR, mock.url, CODE);
});
