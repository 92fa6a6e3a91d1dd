import { describe, expect, it } from 'vitest';

import { indexed, PLAIN, plain, read, sgr } from './ansi.ts';

const ESC = '\u001b';
const show = (text: string): [string, string | null][] => read(text, PLAIN).pieces.map((p) => [p.text, p.style.fg]);

describe('a line of a log', () => {
  it('is one piece when it has no escapes', () => {
    expect(show('plain 한글 text')).toEqual([['plain 한글 text', null]]);
  });

  it('shows the 16, the 256 and the true colours', () => {
    expect(show(`${ESC}[31mred${ESC}[0m ${ESC}[38;5;208morange ${ESC}[38;2;1;2;3mtrue ${ESC}[38:2::9:8:7mcolon`)).toEqual([
      ['red', 'var(--ansi-1)'], [' ', null], ['orange ', 'rgb(255 135 0)'], ['true ', 'rgb(1 2 3)'], ['colon', 'rgb(9 8 7)'],
    ]);
    expect(indexed(232)).toBe('rgb(8 8 8)');
    expect(indexed(256)).toBeNull();
  });

  it('carries its style into the next line', () => {
    const first = read(`${ESC}[1;32mbold`, PLAIN);
    expect(first.style).toMatchObject({ bold: true, fg: 'var(--ansi-2)' });
    expect(read(`next${ESC}[m end`, first.style).pieces.map((p) => p.style.bold)).toEqual([true, false]);
  });

  it('shows what was written last after a carriage return', () => {
    expect(plain('10%\r20%\r30%')).toBe('30%');
    expect(plain('windows line\r')).toBe('windows line');
    expect(plain('50%\r\r')).toBe('50%');
  });

  it('drops every other escape, also cut ones', () => {
    expect(plain(`a${ESC}[2Jb${ESC}[10;5Hc`)).toBe('abc');
    expect(plain(`a${ESC}]0;title\u0007b`)).toBe('ab');
    expect(plain(`a${ESC}]8;;https://evil.example${ESC}\\link${ESC}]8;;${ESC}\\b`)).toBe('alinkb');
    expect(plain(`a${ESC}Pdevice string${ESC}\\b`)).toBe('ab');
    expect(plain(`a${ESC}(Bb${ESC}7c`)).toBe('abc');
    expect(plain(`a${ESC}[38;5`)).toBe('a');
    expect(plain(`a${ESC}`)).toBe('a');
    expect(plain(`a${ESC}]52;c;never ended`)).toBe('a');
  });

  it('drops control and reordering characters but keeps tabs', () => {
    expect(plain('a\u0000b\u0008c\td\u202ee\u2066f')).toBe('abc\tdef');
  });

  it('keeps markup as text', () => {
    expect(plain('<img src=x onerror=alert(1)>')).toBe('<img src=x onerror=alert(1)>');
  });

  it('ignores colours that are out of range', () => {
    expect(sgr(PLAIN, '38;2;300;0;0').fg).toBeNull();
    expect(sgr(PLAIN, '38;5;999').fg).toBeNull();
  });

  it('takes time in proportion to its length', () => {
    const line = `${ESC}[31mx`.repeat(10_000);
    const start = performance.now();
    expect(read(line, PLAIN).pieces.length).toBeGreaterThan(0);
    expect(performance.now() - start).toBeLessThan(500);
  });
});
