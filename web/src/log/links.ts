// Lines in an address: `#L12` and `#L12-L20`. Pure.

export type Lines = readonly [from: number, to: number];

/** The lines that a hash names, in order; null if it names none. */
export function parseLines(hash: string): Lines | null {
  const found = /^#L(\d{1,12})(?:-L?(\d{1,12}))?$/.exec(hash);
  if (!found) return null;
  const from = Number(found[1]);
  const to = found[2] === undefined ? from : Number(found[2]);
  return from <= to ? [from, to] : [to, from];
}

/** The hash for these lines, given in any order. */
export const linesHash = (a: number, b: number): string =>
  a === b ? `#L${a}` : `#L${Math.min(a, b)}-L${Math.max(a, b)}`;
