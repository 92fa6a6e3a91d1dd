// Turns one line of a log into coloured pieces of plain text, as a terminal would show it.
// Only colours and weights (SGR) act; every other escape sequence is dropped, so that a log can move
// nothing, set no title and open no link. `\r` starts the line again: what was written last stays.
// The result is text for text nodes; it never becomes markup.

export interface Style {
  /** CSS colour or null for the default. */
  fg: string | null;
  bg: string | null;
  bold: boolean;
  dim: boolean;
  italic: boolean;
  underline: boolean;
  inverse: boolean;
  strike: boolean;
  hidden: boolean;
}

export interface Piece {
  text: string;
  style: Style;
}

export const PLAIN: Style = Object.freeze({
  fg: null, bg: null, bold: false, dim: false, italic: false, underline: false, inverse: false, strike: false, hidden: false,
});

const CUBE = [0, 95, 135, 175, 215, 255];

/** The CSS colour of an index into the 256 colours; the first 16 follow the theme, darker behind text. */
export function indexed(n: number, behind = false): string | null {
  if (!Number.isInteger(n) || n < 0 || n > 255) return null;
  if (n < 16) return `var(--ansi-${behind ? 'bg-' : ''}${n})`;
  if (n >= 232) {
    const grey = 8 + (n - 232) * 10;
    return `rgb(${grey} ${grey} ${grey})`;
  }
  const c = n - 16;
  return `rgb(${CUBE[Math.floor(c / 36)]} ${CUBE[Math.floor(c / 6) % 6]} ${CUBE[c % 6]})`;
}

/** Applies the parameters of one `ESC [ … m`. */
export function sgr(style: Style, parameters: string): Style {
  // `38:2::r:g:b` and `38;2;r;g;b` both occur; the first has an empty colour space.
  if (parameters === '' || parameters === '0') return PLAIN;
  const groups = parameters.split(';');
  let next: Style = { ...style };
  for (let i = 0; i < groups.length; i += 1) {
    const group = groups[i] ?? '';
    const sub = group.split(':');
    const code = sub[0] === '' ? 0 : Number(sub[0]);
    if (code === 38 || code === 48 || code === 58) {
      let colour: string | null = null;
      if (sub.length > 1) {
        if (sub[1] === '5') colour = indexed(Number(sub[2]), code === 48);
        else if (sub[1] === '2') colour = rgb(sub.length >= 6 ? sub.slice(3, 6) : sub.slice(2, 5));
      } else if (groups[i + 1] === '5') {
        colour = indexed(Number(groups[i + 2]), code === 48);
        i += 2;
      } else if (groups[i + 1] === '2') {
        colour = rgb(groups.slice(i + 2, i + 5));
        i += 4;
      }
      if (code === 38 && colour !== null) next.fg = colour;
      if (code === 48 && colour !== null) next.bg = colour;
    } else if (code === 0) next = { ...PLAIN };
    else if (code === 1) next.bold = true;
    else if (code === 2) next.dim = true;
    else if (code === 3) next.italic = true;
    else if (code === 4) next.underline = sub[1] !== '0';
    else if (code === 7) next.inverse = true;
    else if (code === 8) next.hidden = true;
    else if (code === 9) next.strike = true;
    else if (code === 21) next.underline = true;
    else if (code === 22) next.bold = next.dim = false;
    else if (code === 23) next.italic = false;
    else if (code === 24) next.underline = false;
    else if (code === 27) next.inverse = false;
    else if (code === 28) next.hidden = false;
    else if (code === 29) next.strike = false;
    else if (code >= 30 && code <= 37) next.fg = indexed(code - 30);
    else if (code === 39) next.fg = null;
    else if (code >= 40 && code <= 47) next.bg = indexed(code - 40, true);
    else if (code === 49) next.bg = null;
    else if (code >= 90 && code <= 97) next.fg = indexed(code - 90 + 8);
    else if (code >= 100 && code <= 107) next.bg = indexed(code - 100 + 8, true);
  }
  return next;
}

function rgb(parts: string[]): string | null {
  const values = parts.map(Number);
  if (values.length !== 3 || values.some((v) => !Number.isInteger(v) || v < 0 || v > 255)) return null;
  return `rgb(${values.join(' ')})`;
}

const ESC = 0x1b;

/** Whether a line can be shown as it is: no escape and no control character. */
// eslint-disable-next-line no-control-regex
const SPECIAL = /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/;

/** Characters that reorder text on the screen and could make a line look like another. */
const isBidi = (c: number): boolean => (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);

/** Reads a line that starts in `style`: what to show and the style in which the next line starts. */
export function read(text: string, style: Style): { pieces: Piece[]; style: Style } {
  if (!SPECIAL.test(text)) return { pieces: text === '' ? [] : [{ text, style }], style };
  let pieces: Piece[] = [];
  let from = 0;
  let i = 0;
  let again = false;
  const flush = (to: number): void => {
    if (to <= from) return;
    if (again) {
      pieces = [];
      again = false;
    }
    const last = pieces[pieces.length - 1];
    const slice = text.slice(from, to);
    if (last && last.style === style) last.text += slice;
    else pieces.push({ text: slice, style });
  };
  while (i < text.length) {
    const c = text.charCodeAt(i);
    if (c >= 0x20 && c !== 0x7f && !(c >= 0x80 && c <= 0x9f) && !isBidi(c)) {
      i += 1;
      continue;
    }
    if (c === 0x09) {
      i += 1;
      continue;
    }
    flush(i);
    if (c === 0x0d) {
      again = true;
      i += 1;
    } else if (c === ESC) {
      const { end, sgr: parameters } = escape(text, i);
      if (parameters !== null) style = sgr(style, parameters);
      i = end;
    } else if (c === 0x9b) {
      const { end, sgr: parameters } = csi(text, i + 1);
      if (parameters !== null) style = sgr(style, parameters);
      i = end;
    } else if (c === 0x9d || c === 0x90 || c === 0x98 || c === 0x9e || c === 0x9f) {
      i = string(text, i + 1);
    } else {
      i += 1;
    }
    from = i;
  }
  flush(text.length);
  return { pieces, style };
}

interface End {
  end: number;
  /** Parameters if it was an SGR. */
  sgr: string | null;
}

/** The end of the escape sequence that starts at `at`. A cut one ends with the line. */
function escape(text: string, at: number): End {
  const next = text[at + 1];
  if (next === undefined) return { end: at + 1, sgr: null };
  if (next === '[') return csi(text, at + 2);
  if (']PX^_'.includes(next)) return { end: string(text, at + 2), sgr: null };
  let i = at + 1;
  // Intermediates, as in `ESC ( B`, then one final.
  while (i < text.length && text.charCodeAt(i) >= 0x20 && text.charCodeAt(i) <= 0x2f) i += 1;
  return { end: Math.min(i + 1, text.length), sgr: null };
}

function csi(text: string, from: number): End {
  let i = from;
  while (i < text.length) {
    const c = text.charCodeAt(i);
    if (c >= 0x40 && c <= 0x7e) {
      const parameters = text.slice(from, i);
      return { end: i + 1, sgr: text[i] === 'm' && /^[\d;:]*$/.test(parameters) ? parameters : null };
    }
    if (c < 0x20 || c > 0x7e) return { end: i, sgr: null };
    i += 1;
  }
  return { end: i, sgr: null };
}

/** The end of a string sequence (OSC, DCS, …): BEL, ST or the line's end. */
function string(text: string, from: number): number {
  for (let i = from; i < text.length; i += 1) {
    const c = text.charCodeAt(i);
    if (c === 0x07 || c === 0x9c) return i + 1;
    if (c === ESC) return text[i + 1] === '\\' ? i + 2 : i;
  }
  return text.length;
}

/** What a line reads as, without colours: for search marks and copying. */
export const plain = (text: string): string => read(text, PLAIN).pieces.map((p) => p.text).join('');
