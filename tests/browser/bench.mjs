// How long a log takes to be seen, in a real browser: `npm run bench`. Prints one line a figure, as
// `make bench` does: the median of many loads, beside the floor of the same run, a bare page that
// holds the same lines ready-made. A figure, not a test: it depends on the machine.
//
// log_first_paint_ms   from the navigation to the first painted lines of a log of 100,000, by a link
// log_open_ms          the same log by a click in the app, from the click to the paint
//
// PROFILE=FILE writes a profile of one load, for the browser's performance tools.

import { writeFile } from 'node:fs/promises';

import { openBrowser } from './browser.mjs';
import { CODE, startMock } from './mock.mjs';

const LOADS = Number(process.env.LOADS ?? 15);

const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];
const line = (name, value, unit, floor) =>
  process.stdout.write(`bench ${name} ${value.toFixed(1)} ${unit}${floor === undefined ? '' : ` floor ${floor.toFixed(1)} ratio ${(value / floor).toFixed(2)}`}\n`);

/** In every page: notes when rows were first painted, by the page's own clock. */
function watch() {
  window.painted = new Promise((done) => {
    const look = () => {
      if (!document.querySelector('.row .text')?.textContent) return false;
      // The frame that has them was painted when the task after the next frame runs.
      requestAnimationFrame(() => setTimeout(() => done(performance.now())));
      return true;
    };
    const observer = new MutationObserver(() => {
      if (look()) observer.disconnect();
    });
    observer.observe(document, { subtree: true, childList: true, characterData: true });
  });
}

const bare = (lines) => `<!doctype html><meta charset="utf-8"><style>body{font:12.5px/20px monospace}.row{height:20px}</style><body>${lines.map((l) => `<div class="row"><span class="text">${l}</span></div>`).join('')}`;

const mock = await startMock();
const browser = await openBrowser({ width: 1440, height: 900 });
const { page, context } = browser;
await page.goto(`${mock.url}/login#code=${CODE}`);
await page.click('button.main');
await page.waitForURL('**/runs');
await context.addInitScript(watch);

async function load(url) {
  await page.goto('about:blank');
  await page.goto(url, { waitUntil: 'commit' });
  return page.evaluate(() => window.painted);
}

const html = bare(Array.from({ length: 500 }, (_, i) => `line ${i + 1} of 100000`));
await page.route('**/bare', (route) => route.fulfill({ contentType: 'text/html', body: html }));

// The browser's own caches and compilers are warm, as they are for somebody who works with it.
for (let i = 0; i < 3; i += 1) await load(`${mock.url}/runs/88/big`);
const [floors, firsts, opens] = [[], [], []];
for (let i = 0; i < LOADS; i += 1) {
  floors.push(await load(`${mock.url}/bare`));
  firsts.push(await load(`${mock.url}/runs/88/big`));
  await page.goto(`${mock.url}/runs/88?overview`);
  await page.locator('.jobs a', { hasText: 'big' }).waitFor();
  opens.push(await page.evaluate(async () => {
    const link = [...document.querySelectorAll('.jobs a')].find((a) => a.textContent.includes('big'));
    const start = performance.now();
    link.click();
    return (await window.painted) - start;
  }));
}

if (process.env.PROFILE) {
  const session = await context.newCDPSession(page);
  await session.send('Profiler.enable');
  await session.send('Profiler.setSamplingInterval', { interval: 200 });
  await session.send('Profiler.start');
  await load(`${mock.url}/runs/88/big`);
  const { profile } = await session.send('Profiler.stop');
  await writeFile(process.env.PROFILE, JSON.stringify(profile));
}

line('log_first_paint_ms', median(firsts), 'ms', median(floors));
line('log_open_ms', median(opens), 'ms');
await browser.close();
await mock.close();
