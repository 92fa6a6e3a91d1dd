// What tests say in a few words. Pure.

import { count } from '../../lib/format.ts';
import type { TestCounts, TestSummary } from '../../lib/types.ts';

const WORDS: [keyof TestCounts, string][] = [
  ['failed', 'failed'], ['errored', 'errored'], ['passed', 'passed'], ['skipped', 'skipped'], ['flaky', 'flaky'],
];

/** `2 failed, 120 passed`: what there is of it, the worst first. */
export function testWords(tests: TestSummary): string {
  const words = WORDS.filter(([key]) => tests[key] > 0).map(([key, word]) => `${count(tests[key])} ${word}`);
  if (words.length > 0) return words.join(', ');
  return tests.problems > 0 ? 'no readable report' : 'none ran';
}

/** For a tab: `2 of 122 failed`, `120 passed`. */
export function testShort(tests: TestSummary): string {
  const bad = tests.failed + tests.errored;
  return bad > 0 ? `${count(bad)} of ${count(testTotal(tests))} failed` : testWords(tests);
}

/** All tests of a suite or a report. */
export const testTotal = (c: TestCounts): number => c.passed + c.failed + c.errored + c.skipped;
