// Where each line of a log lies, in pixels, for any number of lines: step headers between them,
// folded steps, and lines that wrap over several rows. A line has the height of one row until it was
// measured; measured extras live in a Fenwick tree, so that looking up a line or a position costs
// O(log n) and never a walk over the log. No DOM here.

/** Prefix sums over a growing list of small numbers. */
export class Sums {
  #tree = new Int32Array(1025);
  #values = new Int32Array(1024);
  #used = 0;

  /** Sets item `i` (from 0). Returns by how much it changed. */
  set(i: number, value: number): number {
    if (i >= this.#values.length) this.#grow(i + 1);
    const change = value - (this.#values[i] ?? 0);
    if (change === 0) return 0;
    this.#values[i] = value;
    this.#used = Math.max(this.#used, i + 1);
    for (let k = i + 1; k <= this.#tree.length - 1; k += k & -k) this.#tree[k] = (this.#tree[k] ?? 0) + change;
    return change;
  }

  /** Sum of items 0 to `count - 1`. */
  upTo(count: number): number {
    let sum = 0;
    for (let k = Math.min(count, this.#used); k > 0; k -= k & -k) sum += this.#tree[k] ?? 0;
    return sum;
  }

  clear(): void {
    this.#tree.fill(0);
    this.#values.fill(0);
    this.#used = 0;
  }

  #grow(need: number): void {
    let size = this.#values.length;
    while (size < need + 1) size *= 2;
    const values = new Int32Array(size);
    values.set(this.#values);
    const tree = new Int32Array(size + 1);
    for (let i = 0; i < this.#used; i += 1) {
      const k = i + 1;
      tree[k] = (tree[k] ?? 0) + (values[i] ?? 0);
      const parent = k + (k & -k);
      if (parent < tree.length) tree[parent] = (tree[parent] ?? 0) + (tree[k] ?? 0);
    }
    this.#values = values;
    this.#tree = tree;
    this.#used = Math.min(this.#used, size);
    this.#complete();
  }

  // The loop above only feeds parents of used items; parents beyond them still need their own.
  #complete(): void {
    for (let k = this.#used + 1; k < this.#tree.length; k += 1) {
      const parent = k + (k & -k);
      if (parent < this.#tree.length) this.#tree[parent] = (this.#tree[parent] ?? 0) + (this.#tree[k] ?? 0);
    }
  }
}

/** Lines `from` to `to`, with a header above them if it is a step's. */
export interface Section {
  /** The step from 1; 0 for what precedes the first step. */
  step: number;
  from: number;
  to: number;
  folded: boolean;
}

export interface Cut {
  step: number;
  first: number;
}

/** Sections of a log of `total` lines whose steps begin at `cuts`. */
export function sections(cuts: Cut[], total: number, folded: ReadonlySet<number>): Section[] {
  const starts = cuts.filter((c) => c.first >= 1 && c.first <= Math.max(total, 1)).sort((a, b) => a.first - b.first);
  const out: Section[] = [];
  const firstStart = starts[0]?.first ?? total + 1;
  if (firstStart > 1) out.push({ step: 0, from: 1, to: Math.min(firstStart - 1, total), folded: false });
  starts.forEach((cut, i) => {
    const to = Math.min((starts[i + 1]?.first ?? total + 1) - 1, total);
    out.push({ step: cut.step, from: cut.first, to, folded: folded.has(cut.step) });
  });
  return out.filter((s) => s.to >= s.from || s.step > 0);
}

export interface Spot {
  /** Index of the section. */
  section: number;
  /** The line, or null when the spot is a header. */
  line: number | null;
  /** Pixels from its top. */
  offset: number;
}

export class Rows {
  readonly row: number;
  readonly header: number;
  #extra = new Sums();
  #sections: Section[] = [];

  constructor(row: number, header: number) {
    this.row = row;
    this.header = header;
  }

  get sections(): readonly Section[] {
    return this.#sections;
  }

  setSections(list: Section[]): void {
    this.#sections = list;
  }

  /** Notes the measured height of a line. Returns whether it changed. */
  measured(line: number, height: number): boolean {
    return this.#extra.set(line - 1, Math.max(0, Math.round(height) - this.row)) !== 0;
  }

  heightOf(line: number): number {
    return this.#lines(line, line);
  }

  forgetHeights(): void {
    this.#extra.clear();
  }

  #head(s: Section): number {
    return s.step > 0 ? this.header : 0;
  }

  /** Height of lines `from` to `to`. */
  #lines(from: number, to: number): number {
    if (to < from) return 0;
    return (to - from + 1) * this.row + this.#extra.upTo(to) - this.#extra.upTo(from - 1);
  }

  #height(s: Section): number {
    return this.#head(s) + (s.folded ? 0 : this.#lines(s.from, s.to));
  }

  total(): number {
    let sum = 0;
    for (const s of this.#sections) sum += this.#height(s);
    return sum;
  }

  sectionOf(line: number): number {
    return this.#sections.findIndex((s) => line >= s.from && line <= s.to);
  }

  topOfSection(index: number): number {
    let sum = 0;
    for (let i = 0; i < index; i += 1) {
      const s = this.#sections[i];
      if (s) sum += this.#height(s);
    }
    return sum;
  }

  /** Top of a line; of its section's header if that is folded. */
  top(line: number): number {
    const index = this.sectionOf(line);
    const s = this.#sections[index];
    if (!s) return line < 1 ? 0 : this.total();
    const head = this.topOfSection(index);
    return s.folded ? head : head + this.#head(s) + this.#lines(s.from, line - 1);
  }

  /** What lies at `y`; the nearest end if nothing does. */
  at(y: number): Spot | null {
    let top = 0;
    for (let i = 0; i < this.#sections.length; i += 1) {
      const s = this.#sections[i];
      if (!s) continue;
      const height = this.#height(s);
      if (y < top + height || i === this.#sections.length - 1) {
        const head = this.#head(s);
        const inside = Math.max(0, y - top);
        if (inside < head || s.folded || s.to < s.from) return { section: i, line: null, offset: inside };
        let low = s.from;
        let high = s.to;
        while (low < high) {
          const middle = (low + high + 1) >> 1;
          if (this.#lines(s.from, middle - 1) <= inside - head) low = middle;
          else high = middle - 1;
        }
        return { section: i, line: low, offset: inside - head - this.#lines(s.from, low - 1) };
      }
      top += height;
    }
    return null;
  }
}

/**
 * Browsers can't make an element taller than some 17 to 33 million pixels. Beyond `LIMIT` the scroll
 * bar's way stands for a longer one; wheel and keys still move by exact pixels.
 */
export const LIMIT = 8_000_000;

export const scale = (virtual: number, view: number, limit = LIMIT): number =>
  virtual <= limit ? 1 : (virtual - view) / (limit - view);
