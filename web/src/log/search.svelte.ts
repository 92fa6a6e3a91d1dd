// The search in one log. The server answers it over every stored line, with an exact count; this only
// remembers the answer and steps through it, around the ends.

import type { LogMatches } from '../lib/types.ts';

export interface Searched {
  /** Asks the server. */
  ask: (words: string) => Promise<LogMatches>;
  /** The line on top of the screen: the first match shown is the next one from there. */
  here: () => number;
  /** Brings a line on the screen. */
  show: (line: number) => void;
}

export class Search {
  open = $state(false);
  query = $state('');
  /** The words that `hits` are of; empty before the first answer. */
  asked = $state('');
  hits = $state.raw<number[]>([]);
  /** All matches, also those that are too many to step through. */
  total = $state(0);
  /** Which of the hits is shown, from 0; -1 if none. */
  at = $state(-1);
  error = $state<unknown>();
  readonly #set = $derived(new Set(this.hits));
  readonly #log: Searched;
  #turn = 0;

  constructor(log: Searched) {
    this.#log = log;
  }

  /** Whether a line is one of the hits. */
  has(line: number): boolean {
    return this.#set.has(line);
  }

  /** The hit that is shown. */
  get line(): number | undefined {
    return this.hits[this.at];
  }

  /** Searches for the query; for the same words again it steps to the next hit. */
  async run(): Promise<void> {
    const words = this.query;
    this.error = undefined;
    const turn = (this.#turn += 1);
    if (words === '') {
      this.#forget();
      return;
    }
    if (words === this.asked && this.hits.length > 0) {
      this.step(1);
      return;
    }
    try {
      const found = await this.#log.ask(words);
      if (turn !== this.#turn) return;
      this.asked = words;
      this.hits = found.lines;
      this.total = found.total;
      const top = this.#log.here();
      this.at = found.lines.length === 0 ? -1 : Math.max(0, found.lines.findIndex((n) => n >= top));
      this.#show();
    } catch (error) {
      if (turn === this.#turn) this.error = error;
    }
  }

  step(by: number): void {
    if (this.hits.length === 0) return;
    this.at = (this.at + by + this.hits.length) % this.hits.length;
    this.#show();
  }

  close(): void {
    this.#turn += 1;
    this.open = false;
    this.#forget();
  }

  #show(): void {
    if (this.line !== undefined) this.#log.show(this.line);
  }

  #forget(): void {
    this.hits = [];
    this.asked = '';
    this.at = -1;
    this.total = 0;
  }
}
