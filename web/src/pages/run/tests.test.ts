import { expect, it } from 'vitest';

import { testShort, testTotal, testWords } from './tests.ts';

const tests = { passed: 0, failed: 0, errored: 0, skipped: 0, flaky: 0, duration_ms: 0, problems: 0 };

it('says the worst first and leaves out what there is none of', () => {
  expect(testWords({ ...tests, passed: 1200, failed: 2, skipped: 1 })).toBe('2 failed, 1,200 passed, 1 skipped');
  expect(testWords({ ...tests, passed: 3, flaky: 1 })).toBe('3 passed, 1 flaky');
});

it('says in a tab what makes a person look', () => {
  expect(testShort({ ...tests, passed: 1200, failed: 1, errored: 1 })).toBe('2 of 1,202 failed');
  expect(testShort({ ...tests, passed: 7 })).toBe('7 passed');
});

it('says when there is nothing, and why', () => {
  expect(testWords(tests)).toBe('none ran');
  expect(testWords({ ...tests, problems: 1 })).toBe('no readable report');
});

it('counts a flaky test once', () => {
  expect(testTotal({ ...tests, passed: 3, flaky: 1, failed: 1 })).toBe(4);
});
