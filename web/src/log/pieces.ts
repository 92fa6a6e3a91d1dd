// What is done to a line's pieces before they are shown: the rest of a very long line is held back,
// and what was searched for is marked. Pure; text stays text.

import type { Piece } from './ansi.ts';

/** Characters of a line that are shown before a person asks for the rest. */
export const SHOWN_CHARS = 4000;
/** Marks in one line; a line that is one word again and again must not become thousands of elements. */
const MARKS = 200;

/** At most `most` characters, and how many are held back. */
export function shorten(pieces: Piece[], most: number): { pieces: Piece[]; cut: number } {
  let left = most;
  let cut = 0;
  const short: Piece[] = [];
  for (const piece of pieces) {
    if (left <= 0) cut += piece.text.length;
    else if (piece.text.length > left) {
      short.push({ text: piece.text.slice(0, left), style: piece.style });
      cut += piece.text.length - left;
    } else short.push(piece);
    left -= piece.text.length;
  }
  return { pieces: cut === 0 ? pieces : short, cut };
}

/** Splits pieces so that what was searched for stands alone, in the colours of a match. */
export function mark(pieces: Piece[], words: string): Piece[] {
  if (words === '') return pieces;
  const spans = matches(pieces.map((p) => p.text).join(''), words);
  if (spans.length === 0) return pieces;
  const out: Piece[] = [];
  let base = 0;
  for (const piece of pieces) {
    let at = 0;
    for (const [from, to] of spans) {
      const a = Math.max(0, from - base);
      const b = Math.min(piece.text.length, to - base);
      if (b <= a || a < at) continue;
      if (a > at) out.push({ text: piece.text.slice(at, a), style: piece.style });
      out.push({ text: piece.text.slice(a, b), style: { ...piece.style, bg: 'var(--hit)', fg: 'var(--hit-ink)' } });
      at = b;
    }
    if (at < piece.text.length) out.push({ text: piece.text.slice(at), style: piece.style });
    base += piece.text.length;
  }
  return out;
}

/** Where the words stand. As the server finds them: case matters only if there is an upper-case letter. */
function matches(line: string, words: string): [from: number, to: number][] {
  const text = words === words.toLowerCase() ? line.toLowerCase() : line;
  const spans: [number, number][] = [];
  for (let at = text.indexOf(words); at >= 0 && spans.length < MARKS; at = text.indexOf(words, at + words.length)) {
    spans.push([at, at + words.length]);
  }
  return spans;
}
