// Every page by axe-core's rules, light and dark.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { after, before, test } from 'node:test';

import { openBrowser } from './browser.mjs';
import { CODE, startMock } from './mock.mjs';
import { PAGES } from './shots.mjs';

let mock;
let axe;

before(async () => {
  mock = await startMock();
  axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
});
after(() => mock?.close());

for (const colorScheme of ['light', 'dark']) {
  test(`no page breaks a rule of accessibility, ${colorScheme}`, async () => {
    const browser = await openBrowser({ width: 1280, height: 800, colorScheme });
    const { page } = browser;
    const broken = [];
    // A log's own colours are its writer's.
    const check = async (name) => {
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => window.axe.run({ exclude: [['.text']] }, { resultTypes: ['violations'] }));
      for (const v of violations) broken.push(`${name}: ${v.id}: ${v.nodes.slice(0, 2).map((n) => `${n.target} ${n.html.slice(0, 140)} ${n.any[0]?.message ?? ''}`).join(' | ')}`);
    };
    await page.goto(`${mock.url}/login#code=${CODE}`);
    await check('login');
    await page.click('button.main');
    await page.waitForURL('**/runs');
    for (const [name, path] of PAGES.filter(([n]) => n !== 'login')) {
      await page.goto(mock.url + path);
      await page.waitForFunction(() => document.querySelector('main') && !/^Loading/m.test(document.querySelector('main').innerText));
      if (name.includes('run-failed') || name === 'log') await page.locator('.row').first().waitFor();
      await check(name);
    }
    await page.goto(`${mock.url}/dora?metric=change_fail_rate`);
    await page.locator('.rows').waitFor();
    await check('dora rows');
    await page.keyboard.press('?');
    await page.getByRole('dialog').waitFor();
    await check('help');
    await browser.close();
    assert.deepEqual(broken, []);
  });
}
