// A fresh Chromium for each test file, with a record of everything that a page should never do:
// uncaught errors, console errors, violations of the Content-Security-Policy.

import { access, constants, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { chromium } from 'playwright-core';

const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
];

const PROGRAM = process.env.CHROMIUM ?? '/usr/bin/chromium';

export async function openBrowser({ width = 1280, height = 800, colorScheme = 'light' } = {}) {
  await access(PROGRAM, constants.X_OK).catch(() => {
    throw new Error(`there is no Chromium at ${PROGRAM}; fix: tests/ensure.sh browser, or name another with CHROMIUM`);
  });
  const dir = await mkdtemp(join(tmpdir(), 'pipeyard-chromium-'));
  const context = await chromium.launchPersistentContext(dir, {
    executablePath: PROGRAM, headless: true, args: FLAGS,
    viewport: { width, height }, colorScheme, locale: 'en-GB', timezoneId: 'UTC',
  });
  context.setDefaultTimeout(15_000);
  const troubles = [];
  await context.exposeBinding('pipeyardTrouble', (_, text) => troubles.push(text));
  await context.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (e) => window.pipeyardTrouble(`csp: ${e.violatedDirective} ${e.blockedURI} ${e.sourceFile}:${e.lineNumber}`));
  });
  context.on('page', watch);
  for (const page of context.pages()) watch(page);
  function watch(page) {
    page.on('pageerror', (error) => troubles.push(`error: ${error.message}`));
    page.on('console', (message) => {
      // A refused or dropped request is written to the console by the browser itself.
      if (message.type() === 'error' && !/Failed to load resource|net::ERR/.test(message.text())) troubles.push(`console: ${message.text()}`);
    });
  }
  const page = context.pages()[0] ?? (await context.newPage());
  return {
    context, page, troubles,
    async close() {
      await context.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** Whether the page can be scrolled sideways. */
export const sideways = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
