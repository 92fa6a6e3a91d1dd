// The part of a log that is on the screen. The page's scroll bar stands for the log's whole height,
// scaled when a browser can't make an element that tall; lines are placed by `Rows`. Knows no DOM but
// through `Frame`, so that scrolling, following and folding can be tested without one.
//
// Invariants: what is on top of the screen stays there when lines arrive or are measured; following
// stops when the person scrolls up and starts again at the bottom.

import { LIMIT, Rows, scale, sections, type Cut, type Section } from './rows.ts';

export const ROW = 20;
export const HEAD = 30;
/** Pixels above and below the screen that are drawn too. */
const OVER = 600;

/** What scrolls. */
export interface Frame {
  /** Pixels that it shows. */
  readonly height: number;
  /** How far it is scrolled; a browser may round what is set. */
  top: number;
  /** Makes its content this tall. */
  grow(height: number): void;
}

/** The log behind the window. */
export interface Lines {
  readonly total: number;
  readonly complete: boolean;
  /** Says which lines are near the screen; missing ones are fetched. */
  show(from: number, to: number): void;
}

export type Item = { kind: 'line'; key: string; n: number } | { kind: 'head'; key: string; section: Section };

interface Anchor {
  line: number;
  offset: number;
}

export class LogWindow {
  readonly rows = new Rows(ROW, HEAD);
  /** Rises when lines or their places changed. */
  version = $state(0);
  /** Top of the screen in pixels of the whole log. */
  top = $state(0);
  height = $state(600);
  following = $state(false);
  folded = $state.raw<ReadonlySet<number>>(new Set());
  /** How far the frame itself is scrolled. */
  physical = $state(0);
  readonly #lines: Lines;
  readonly #cuts: () => Cut[];
  #frame: Frame | null = null;
  #factor = 1;
  #lastSet = 0;
  /** Where the page put the log by itself; kept there while heights are measured, until the person scrolls. */
  #goal: { line: number; at: 'third' | 'bottom' } | null = null;

  constructor(lines: Lines, cuts: () => Cut[]) {
    this.#lines = lines;
    this.#cuts = cuts;
  }

  attach(frame: Frame): void {
    this.#frame = frame;
    this.height = frame.height;
  }

  /** From now on nothing moves: events that were on their way may still come. */
  detach(): void {
    this.#frame = null;
  }

  /** What is to be drawn, and where its first row lies. */
  drawn(): { items: Item[]; top: number; from: number; to: number } {
    void this.version;
    const { rows } = this;
    const items: Item[] = [];
    const list = rows.sections;
    const first = Math.max(0, this.top - OVER);
    const start = rows.at(first);
    if (!start) return { items, top: 0, from: 1, to: 1 };
    const end = this.top + this.height + OVER;
    let y = first - start.offset;
    const top = y;
    let from = 0;
    let to = 0;
    for (let i = start.section; i < list.length && y < end; i += 1) {
      const section = list[i];
      if (!section) break;
      let n = section.from;
      if (i === start.section && start.line !== null) n = start.line;
      else if (section.step > 0) {
        items.push({ kind: 'head', key: `s${section.step}`, section });
        y += HEAD;
      }
      if (section.folded) continue;
      for (; n <= section.to && y < end; n += 1) {
        items.push({ kind: 'line', key: `l${n}`, n });
        if (from === 0) from = n;
        to = n;
        y += rows.heightOf(n);
      }
    }
    return { items, top, from: from || 1, to: to || 1 };
  }

  /** The step whose lines are on top of the screen while its header is above it. */
  above(): Section | null {
    void this.version;
    const spot = this.rows.at(this.top + 1);
    const section = spot ? this.rows.sections[spot.section] : undefined;
    return spot && section && section.step > 0 && spot.line !== null ? section : null;
  }

  /** The line on top of the screen. */
  topLine(): number {
    return this.#anchor()?.line ?? 1;
  }

  /** Sections and heights anew; keeps what is on top of the screen where it is. */
  layout(): void {
    const keep = this.#anchor();
    this.#cut();
    this.#settle(keep);
  }

  /** The frame has another size; wrapped lines have other heights then. */
  resized(height: number, wrapped: boolean, opened: boolean): void {
    const keep = this.#anchor();
    if (wrapped) this.rows.forgetHeights();
    this.height = height;
    if (opened) this.#settle(keep);
  }

  /** Heights of lines as they are drawn. */
  measured(heights: Iterable<[line: number, height: number]>): void {
    const keep = this.#anchor();
    let different = false;
    for (const [line, height] of heights) if (this.rows.measured(line, height)) different = true;
    if (different) this.#settle(keep);
  }

  forgetHeights(): void {
    const keep = this.#anchor();
    this.rows.forgetHeights();
    this.#settle(keep);
  }

  /** Shows the first line, with nothing chosen. */
  begin(): void {
    this.#cut();
    this.#settle(null);
  }

  /** Shows a line as the last one. */
  endAt(line: number): void {
    this.#cut();
    this.#goal = { line, at: 'bottom' };
    this.#settle(null);
  }

  /** Shows a line with some of what precedes it; opens its step if that is folded. */
  reveal(line: number): void {
    this.#cut();
    const section = this.rows.sections[this.rows.sectionOf(line)];
    if (section?.folded) {
      const next = new Set(this.folded);
      next.delete(section.step);
      this.folded = next;
      this.#cut();
    }
    this.following = false;
    this.#goal = { line, at: 'third' };
    this.#settle(null);
  }

  /** Goes to the end and stays there. */
  follow(): void {
    this.#cut();
    this.#goal = null;
    this.following = true;
    this.#settle(null);
  }

  fold(step: number): void {
    const next = new Set(this.folded);
    if (!next.delete(step)) next.add(step);
    this.#chooseFolded(next);
  }

  foldAll(): void {
    this.#chooseFolded(this.folded.size > 0 ? new Set() : new Set(this.#cuts().map((c) => c.step)));
    this.#moveTo(0);
  }

  /** The person turned pages or pressed a key. */
  page(by: number): void {
    this.#moveTo(this.top + by);
    this.#personMoved();
  }

  toStart(): void {
    this.page(-this.rows.total());
  }

  toEnd(): void {
    this.page(this.rows.total());
  }

  /** The frame was scrolled, by the person or by `#moveTo`. */
  scrolled(): void {
    if (!this.#frame) return;
    const now = this.#frame.top;
    if (Math.abs(now - this.#lastSet) < 1) return;
    this.#lastSet = now;
    this.physical = now;
    this.top = Math.min(this.#maxTop(), this.#factor === 1 ? now : now * this.#factor);
    this.#personMoved();
    this.#tell();
  }

  /** With a scaled scroll bar a turn of the wheel would jump: then it moves by its own pixels, and answers true. */
  wheel(deltaY: number, unit: 'pixel' | 'line' | 'page'): boolean {
    if (this.#factor === 1) return false;
    this.page(deltaY * (unit === 'line' ? ROW : unit === 'page' ? this.height : 1));
    return true;
  }

  #chooseFolded(next: ReadonlySet<number>): void {
    this.folded = next;
    this.following = false;
    this.#goal = null;
    this.layout();
  }

  #cut(): void {
    this.rows.setSections(sections(this.#cuts(), this.#lines.total, this.folded));
  }

  /** After a change of geometry: at the end, at the goal, or where it was. */
  #settle(keep: Anchor | null): void {
    this.version += 1;
    const goal = this.#goal;
    if (this.following) this.#moveTo(this.#maxTop());
    else if (goal?.at === 'third') this.#moveTo(this.rows.top(goal.line) - Math.floor(this.height / 3));
    else if (goal) this.#moveTo(this.rows.top(goal.line + 1) - this.height + ROW);
    else this.#moveTo(keep ? this.rows.top(keep.line) + keep.offset : this.top);
  }

  #anchor(): Anchor | null {
    const spot = this.rows.at(this.top);
    if (!spot) return null;
    if (spot.line !== null) return { line: spot.line, offset: spot.offset };
    const section = this.rows.sections[spot.section];
    if (!section || section.folded) return null;
    return { line: section.from, offset: spot.offset - HEAD };
  }

  #maxTop(): number {
    return Math.max(0, this.rows.total() - this.height);
  }

  /** Scrolls to exact pixels of the whole log. */
  #moveTo(y: number): void {
    const frame = this.#frame;
    if (!frame) return;
    const total = this.rows.total();
    this.#factor = scale(total, this.height);
    frame.grow(Math.min(total, LIMIT));
    this.top = Math.min(Math.max(0, y), this.#maxTop());
    const want = this.top / this.#factor;
    if (Math.abs(frame.top - want) >= 0.5) frame.top = want;
    this.#lastSet = frame.top;
    this.physical = this.#lastSet;
    // A browser rounds what it scrolls to: the exact place stays in `top` only while that is finer.
    if (this.#factor === 1 && Math.abs(this.#lastSet - this.top) >= 1) this.top = Math.min(this.#maxTop(), this.#lastSet);
    this.#tell();
  }

  #tell(): void {
    const { rows } = this;
    this.#lines.show(rows.at(Math.max(0, this.top - OVER))?.line ?? 1, rows.at(this.top + this.height + OVER)?.line ?? 1);
  }

  #personMoved(): void {
    this.#goal = null;
    const atEnd = this.top >= this.#maxTop() - ROW / 2;
    this.following = atEnd && !this.#lines.complete;
  }
}
