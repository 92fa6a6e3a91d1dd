// The log viewer in a real browser: long logs, following, links, search, hostile text.

import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';

import { openBrowser } from './browser.mjs';
import { CODE, startMock } from './mock.mjs';

let mock;
let browser;
let page;

before(async () => {
  mock = await startMock({ liveLines: 5000 });
  browser = await openBrowser();
  page = browser.page;
  await page.goto(`${mock.url}/login#code=${CODE}`);
  await page.click('button.main');
  await page.waitForURL('**/runs');
});
beforeEach(() => page.goto('about:blank'));
after(async () => {
  await browser?.close();
  await mock?.close();
});

const row = (n) => page.locator(`.row[data-n="${n}"]`);
const text = (n) => row(n).locator('.text');
const rows = () => page.locator('.row').count();
const open = async (path) => {
  await page.goto(mock.url + path);
  await page.locator('.row').first().waitFor();
};
const settled = () => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
/** Whether a row is inside the part of the log that is on the screen. */
const onScreen = (n) => page.evaluate((k) => {
  const element = document.querySelector(`.row[data-n="${k}"]`);
  if (!element) return false;
  const box = element.getBoundingClientRect();
  const frame = document.querySelector('.scroll').getBoundingClientRect();
  return box.top >= frame.top - 1 && box.bottom <= frame.bottom + 1;
}, n);

test('a log of 100,000 lines opens with a few rows in the document', async () => {
  const start = performance.now();
  await open('/runs/88/big');
  await text(1).filter({ hasText: 'line 1 of 100000' }).waitFor();
  const took = performance.now() - start;
  assert.ok((await rows()) < 200, `${await rows()} rows`);
  assert.ok(took < 5000, `first rows after ${took} ms`);
  await page.getByText('100,000 lines').waitFor();
});

test('a log of 100,000 lines scrolls to its end and back, line by line right', async () => {
  await open('/runs/88/big');
  await page.locator('.scroll').focus();
  await page.keyboard.press('End');
  await text(100_000).filter({ hasText: 'line 100000 of 100000' }).waitFor();
  assert.ok(await onScreen(100_000));
  await page.locator('.scroll').evaluate((e) => { e.scrollTop = e.scrollHeight / 2; });
  await page.waitForFunction(() => [...document.querySelectorAll('.row')].some((r) => { const n = Number(r.dataset.n); return n > 49_000 && n < 51_000 && r.querySelector('.text').textContent.startsWith(n % 10 === 0 ? 'ok line' : `line ${n} `); }));
  assert.ok((await rows()) < 200);
  await page.keyboard.press('Home');
  await text(1).filter({ hasText: 'line 1 of' }).waitFor();
});

test('a log of a million lines, taller than a browser can scroll, reaches every line', async () => {
  await open('/runs/88/huge');
  await page.locator('.scroll').focus();
  await page.keyboard.press('End');
  await text(1_000_000).filter({ hasText: 'line 1000000 of' }).waitFor();
  assert.ok(await onScreen(1_000_000));
  // A turn of the wheel moves by its own pixels, not by the scale of the scroll bar.
  await page.mouse.move(900, 500);
  await page.mouse.wheel(0, -100);
  await settled();
  assert.equal(await onScreen(1_000_000), false);
  assert.equal(await onScreen(999_990), true);
  await page.goto(`${mock.url}/runs/88/huge?attempt=1#L654321`);
  await text(654_321).filter({ hasText: 'line 654321 of' }).waitFor();
  assert.ok(await onScreen(654_321));
});

test('a link to a line shows that line, marked, and a click on a number makes one', async () => {
  await open('/runs/88/big?attempt=1#L73512');
  await text(73_512).filter({ hasText: 'line 73512' }).waitFor();
  assert.ok(await onScreen(73_512));
  assert.match(await row(73_512).getAttribute('class'), /target/);
  const before = await row(73_515).boundingBox();
  await row(73_515).locator('.n').click();
  assert.match(page.url(), /\/runs\/88\/big\?attempt=1#L73515$/);
  await settled();
  assert.deepEqual(await row(73_515).boundingBox(), before, 'the log doesn’t move under the pointer');
  await row(73_518).locator('.n').click({ modifiers: ['Shift'] });
  assert.match(page.url(), /#L73515-L73518$/);
  assert.match(await row(73_517).getAttribute('class'), /target/);
});

test('a failed run opens on its first failed job, at the end of the step that failed', async () => {
  await open('/runs/81');
  await text(402).filter({ hasText: 'error: test failed' }).waitFor();
  assert.ok(await onScreen(402));
  assert.ok(await onScreen(396));
  await page.getByText('exit 101').first().waitFor();
});

test('an older attempt keeps its own lines and its own address', async () => {
  await open('/runs/81/test?attempt=1#L50');
  await page.getByText('120 lines').waitFor();
  await page.getByText('stopped answering').waitFor();
  assert.ok(await onScreen(50));
  // Its steps are its own, with their ends.
  await page.locator('.above').getByText('cargo test --locked').waitFor();
  await page.getByRole('button', { name: 'Fold all' }).click();
  await page.locator('.step', { hasText: 'cargo fetch --locked' }).getByText('37 lines').waitFor();
  await page.locator('.step', { hasText: 'cargo test --locked' }).getByText('80 lines').waitFor();
});

test('search asks the server and steps through every match', async () => {
  await open('/runs/88/big');
  await page.keyboard.press('/');
  await page.getByRole('textbox', { name: 'Search the whole log' }).fill('9999');
  await page.keyboard.press('Enter');
  await page.locator('.found', { hasText: '1 of 19' }).waitFor();
  await text(9999).filter({ hasText: 'line 9999 of' }).waitFor();
  await page.locator('.scroll').focus();
  await page.keyboard.press('n');
  await page.locator('.found', { hasText: '2 of 19' }).waitFor();
  await text(19_999).filter({ hasText: 'line 19999' }).waitFor();
  assert.ok(await onScreen(19_999));
  await page.keyboard.press('N');
  await page.keyboard.press('N');
  await page.locator('.found', { hasText: '19 of 19' }).waitFor();
  await text(99_999).waitFor();
  await page.keyboard.press('Control+f');
  await page.keyboard.press('Escape');
  assert.equal(await page.locator('.find').count(), 0);
});

test('a running log follows its end, stops when one scrolls up, and goes on from the button', async () => {
  await open('/runs/86/test');
  await text(5000).waitFor();
  mock.append(100);
  await text(5100).filter({ hasText: 'line 5100' }).waitFor();
  assert.ok(await onScreen(5100));
  await page.mouse.move(900, 500);
  await page.mouse.wheel(0, -3000);
  await page.getByRole('button', { name: 'Follow the end' }).waitFor();
  const top = await page.evaluate(() => document.querySelector('.scroll').scrollTop);
  mock.append(500);
  await page.getByText('5,600 lines').waitFor();
  await settled();
  assert.equal(await page.evaluate(() => document.querySelector('.scroll').scrollTop), top, 'not a pixel of drift');
  await page.getByRole('button', { name: 'Follow the end' }).click();
  await text(5600).filter({ hasText: 'line 5600' }).waitFor();
  assert.ok(await onScreen(5600));
});

test('a lost connection resumes where it was, with nothing lost or doubled', async () => {
  await open('/runs/86/test');
  const known = mock.state.live.length;
  await text(known).waitFor();
  mock.drop();
  mock.append(50, (n) => `after the gap ${n}`);
  mock.append(50, (n) => `after the gap ${n}`);
  await text(known + 100).filter({ hasText: `after the gap ${known + 100}` }).waitFor();
  const seen = await page.evaluate(() => [...document.querySelectorAll('.row')].map((r) => Number(r.dataset.n)));
  seen.forEach((n, i) => assert.equal(n, seen[0] + i));
  for (const n of seen.filter((k) => k > known)) assert.equal(await text(n).textContent(), `after the gap ${n}`);
});

test('5,000 lines a second arrive and the page stays at the end', async () => {
  await open('/runs/86/test');
  await text(mock.state.live.length).waitFor();
  const until = mock.state.live.length + 10_000;
  await new Promise((done) => {
    const timer = setInterval(() => {
      mock.append(250);
      if (mock.state.live.length >= until) {
        clearInterval(timer);
        done();
      }
    }, 50);
  });
  const last = mock.state.live.length;
  await text(last).filter({ hasText: `line ${last}` }).waitFor({ timeout: 5000 });
  assert.ok(await onScreen(last));
  assert.ok((await rows()) < 200);
});

test('hostile text stays text: no element, no script, no link, no title', async () => {
  await open('/runs/88/hostile');
  await text(16).waitFor();
  const found = await page.evaluate(() => ({
    pwned: window.pwned, title: document.title,
    odd: [...document.querySelectorAll('.text *')].filter((e) => !['SPAN', 'BUTTON'].includes(e.tagName)).length,
    scripts: document.querySelectorAll('.log script, .log img, .log h1, .text a').length,
  }));
  assert.equal(found.pwned, undefined);
  assert.equal(found.odd, 0);
  assert.equal(found.scripts, 0);
  assert.match(found.title, /^Run 88 \/ hostile/);
  assert.equal(await text(1).textContent(), '<script>window.pwned = 1</script>');
  assert.equal(await text(3).textContent(), 'after a title');
  assert.equal(await text(4).textContent(), 'a link');
  assert.equal(await text(6).textContent(), '100% done');
  assert.equal(await text(7).textContent(), 'gnp.exe reversed');
  assert.equal(await text(9).textContent(), '한글 로그 줄');
  assert.equal(await text(14).locator('span').first().evaluate((e) => getComputedStyle(e).color), 'rgb(120, 200, 255)', 'a colour is carried to the next line');
  assert.equal(await text(15).locator('span').count(), 0);
  assert.ok((await text(12).textContent()).includes('more characters'));
  await text(12).getByRole('button').click();
  assert.equal((await text(12).textContent()).length, 20_002);
});

test('steps fold away and a link into a folded step opens it', async () => {
  await open('/runs/80/test');
  await page.getByRole('button', { name: 'Fold all' }).click();
  await settled();
  assert.equal(await row(50).count(), 0);
  await page.evaluate(() => { location.hash = '#L50'; });
  await row(50).waitFor();
  assert.ok(await onScreen(50));
});

test('wrapped lines are measured and a link still lands on its line', async () => {
  await page.setViewportSize({ width: 420, height: 800 });
  await open('/runs/88/big?attempt=1#L60');
  if ((await page.getByRole('button', { name: 'Wrap' }).getAttribute('aria-pressed')) === 'false') await page.keyboard.press('w');
  await settled();
  assert.ok(await onScreen(60));
  assert.ok((await row(59).boundingBox()).height >= 40 || (await row(60).boundingBox()).height >= 20);
  const boxes = await page.evaluate(() => [...document.querySelectorAll('.row')].map((r) => { const b = r.getBoundingClientRect(); return [b.top, b.bottom]; }));
  for (let i = 1; i < boxes.length; i += 1) assert.ok(Math.abs(boxes[i][0] - boxes[i - 1][1]) < 31, 'rows follow one another');
  await page.keyboard.press('w');
  await page.setViewportSize({ width: 1280, height: 800 });
});

test('nothing broke the security policy and nothing failed in the page', () => {
  assert.deepEqual(browser.troubles, []);
});
