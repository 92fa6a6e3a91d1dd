import { describe, expect, it } from 'vitest';

import { PLAIN, read, type Piece } from './ansi.ts';
import { mark, shorten } from './pieces.ts';

const texts = (pieces: Piece[]): string[] => pieces.map((p) => p.text);
const marked = (pieces: Piece[]): string[] => pieces.filter((p) => p.style.bg === 'var(--hit)').map((p) => p.text);
const line = (text: string): Piece[] => read(text, PLAIN).pieces;

describe('a long line', () => {
  it('is shown up to a limit, over the borders of its pieces', () => {
    const pieces = line('abc\u001b[31mdefgh\u001b[0mij');
    expect(shorten(pieces, 20)).toEqual({ pieces, cut: 0 });
    const short = shorten(pieces, 5);
    expect(texts(short.pieces)).toEqual(['abc', 'de']);
    expect(short.cut).toBe(5);
    expect(shorten(pieces, 8).cut).toBe(2);
  });
});

describe('what was searched for', () => {
  it('is marked wherever it stands, over the borders of colours', () => {
    expect(marked(mark(line('one two one'), 'one'))).toEqual(['one', 'one']);
    const over = mark(line('fail\u001b[31mure of one'), 'failure');
    expect(marked(over)).toEqual(['fail', 'ure']);
    expect(texts(over).join('')).toBe('failure of one');
  });

  it('asks for case only where it has some', () => {
    expect(marked(mark(line('Error error'), 'error'))).toEqual(['Error', 'error']);
    expect(marked(mark(line('Error error'), 'Error'))).toEqual(['Error']);
  });

  it('leaves a line without it as it is', () => {
    const pieces = line('nothing here');
    expect(mark(pieces, 'x')).toBe(pieces);
    expect(mark(pieces, '')).toBe(pieces);
  });

  it('makes a bounded number of marks', () => {
    expect(marked(mark(line('a'.repeat(10_000)), 'a')).length).toBe(200);
  });
});
