// Pictures of every page, light, dark and narrow, from the mock or from a server.
// `node shots.mjs DIR [BASE_URL CODE]`. A server's code holds once: take an API token for all looks.

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { openBrowser } from './browser.mjs';
import { CODE, startMock } from './mock.mjs';

export const PAGES = [
  ['login', '/login'], ['runs', '/runs'], ['run', '/runs/80'], ['run-failed', '/runs/81'], ['run-tests', '/runs/81/test?part=tests'], ['run-invalid', '/runs/84'], ['run-many', '/runs/83?overview'],
  ['run-waiting', '/runs/87/train'], ['log', '/runs/88/big#L73512'], ['hostile', '/runs/88/hostile'],
  ['deployments', '/deployments'], ['deployment-canary', '/deployments/14'], ['deployment-rolled-back', '/deployments/15'], ['deployment-rolling', '/deployments/13'], ['deployment-approval', '/deployments/16'],
  ['dora', '/dora'], ['incidents', '/incidents'], ['environments', '/environments'], ['runners', '/runners'], ['repos', '/repos'], ['secrets', '/secrets'], ['audit', '/audit'],
];

const LOOKS = [
  ['light', { width: 1440, height: 900, colorScheme: 'light' }], ['dark', { width: 1440, height: 900, colorScheme: 'dark' }], ['narrow', { width: 360, height: 740, colorScheme: 'light' }],
];

export async function shoot(dir, base, code, pages = PAGES, looks = LOOKS) {
  await mkdir(dir, { recursive: true });
  for (const [look, options] of looks) {
    const browser = await openBrowser(options);
    const { page } = browser;
    await page.goto(`${base}/login#code=${typeof code === 'function' ? await code() : code}`);
    if (pages.some(([name]) => name === 'login')) await page.screenshot({ path: join(dir, `login-${look}.png`) });
    await page.click('button.main');
    await page.waitForURL('**/runs');
    for (const [name, path] of pages) {
      if (name === 'login') continue;
      await page.goto(`${base}${path}`);
      await page.waitForLoadState('load');
      await page.waitForFunction(() => document.querySelector('main') && !/^Loading/m.test(document.querySelector('main').innerText));
      await page.waitForTimeout(250);
      await page.screenshot({ path: join(dir, `${name}-${look}.png`), fullPage: look === 'narrow' });
    }
    if (browser.troubles.length > 0) process.stderr.write(`${look}: ${browser.troubles.join('\n')}\n`);
    await browser.close();
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [dir = 'shots', base, code] = process.argv.slice(2);
  const only = process.env.ONLY?.split(',');
  const pages = only ? PAGES.filter(([name]) => only.includes(name)) : PAGES;
  const looks = process.env.LOOK ? LOOKS.filter(([name]) => process.env.LOOK.split(',').includes(name)) : LOOKS;
  if (base) await shoot(dir, base, code, pages, looks);
  else {
    const mock = await startMock();
    await shoot(dir, mock.url, CODE, pages, looks);
    await mock.close();
  }
}
