// The lines of one attempt's log as the page knows them: windows fetched by line number, the end
// followed live. Invariants: a line's number never changes; nothing is dropped silently (a gap in the
// stream is fetched); memory is bounded however long the log is; at most two fetches are in flight,
// always for what is on the screen now.

import { ApiError, api } from '../lib/api.ts';
import type { LogLine, LogPage } from '../lib/types.ts';
import { PLAIN, read, type Style } from './ansi.ts';
import { BLOCK, blockOf } from './opening.ts';

const KEEP_BLOCKS = 80;
const MAX_IN_FLIGHT = 2;
const RETRY_MS = [500, 1000, 2000, 4000, 8000];
const HIDDEN_MS = 20_000;

interface Block {
  lines: (LogLine | undefined)[];
  have: number;
  /** Style at the start of each line, as far as it was worked out; thrown away when it may be wrong. */
  styles: Style[];
}

interface Failed {
  error: { code: string; message: string; hint?: string };
}

export type FollowState = 'off' | 'live' | 'lost' | 'ended';

/** Where the lines come from; the API, or a test. */
export interface Source {
  page(from: number, count: number, signal?: AbortSignal): Promise<LogPage>;
  followUrl(from: number): string;
}

export const sourceOf = (run: number, job: string, attempt: number | null): Source => ({
  page: (from, count, signal) => api.log(run, job, attempt, from, count, signal),
  followUrl: (from) => api.logFollow(run, job, attempt, from),
});

export class LogData {
  total = 0;
  complete = false;
  error: unknown = undefined;
  follow: FollowState = 'off';
  #source: Source;
  #changed: () => void;
  #blocks = new Map<number, Block>();
  #inFlight = new Map<number, AbortController>();
  #want: [from: number, to: number] = [1, 1];
  #stream: EventSource | undefined;
  #failures = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #hidden: ReturnType<typeof setTimeout> | undefined;
  #stopped = false;
  #retry: ReturnType<typeof setTimeout> | undefined;

  constructor(source: Source, changed: () => void) {
    this.#source = source;
    this.#changed = changed;
  }

  /** Fetches how long the log is, with the lines around `from`; negative: so many before its end. */
  async open(from: number): Promise<void> {
    try {
      this.#take(await this.#source.page(from < 0 ? from : blockOf(from) * BLOCK + 1, BLOCK));
      this.error = undefined;
    } catch (error) {
      this.error = error;
    }
    if (!this.#stopped) this.#changed();
  }

  line(n: number): LogLine | undefined {
    return this.#blocks.get(blockOf(n))?.lines[(n - 1) % BLOCK];
  }

  /** The style in which a line starts. Right if the block before it is known, else from its block's start. */
  styleAt(n: number): Style {
    const index = blockOf(n);
    const block = this.#blocks.get(index);
    if (!block) return PLAIN;
    const at = (n - 1) % BLOCK;
    if (block.styles.length === 0) block.styles.push(this.#startStyle(index, block));
    while (block.styles.length <= at) {
      const i = block.styles.length - 1;
      block.styles.push(after(block.lines[i], block.styles[i] ?? PLAIN, block.lines[i + 1]));
    }
    return block.styles[at] ?? PLAIN;
  }

  #startStyle(index: number, block: Block): Style {
    const before = this.#blocks.get(index - 1);
    const last = before?.lines[BLOCK - 1];
    if (!before || !last || before.have < BLOCK) return PLAIN;
    // Only one block back is worked out here; that one starts from what it knew itself.
    return after(last, this.styleAt(index * BLOCK), block.lines[0]);
  }

  /** Says which lines are on the screen; missing ones are fetched. */
  show(from: number, to: number): void {
    this.#want = [Math.max(1, from), Math.max(1, to)];
    this.#pump();
  }

  #pump(): void {
    if (this.#stopped) return;
    if (this.total === 0) return;
    const first = blockOf(this.#want[0]);
    const last = blockOf(Math.min(this.#want[1], this.total));
    for (const [index, abort] of this.#inFlight) if (index < first - 1 || index > last + 1) abort.abort();
    for (let index = first; index <= last && this.#inFlight.size < MAX_IN_FLIGHT; index += 1) {
      if (this.#inFlight.has(index) || this.#whole(index)) continue;
      void this.#fetch(index);
    }
  }

  #whole(index: number): boolean {
    const size = Math.min(BLOCK, this.total - index * BLOCK);
    return (this.#blocks.get(index)?.have ?? 0) >= size;
  }

  async #fetch(index: number): Promise<void> {
    const abort = new AbortController();
    this.#inFlight.set(index, abort);
    let failed = false;
    // The server sends fewer lines than asked for when they are long: the next fetch goes on from there.
    const block = this.#blocks.get(index);
    let skip = 0;
    while (block?.lines[skip] !== undefined) skip += 1;
    try {
      this.#take(await this.#source.page(index * BLOCK + 1 + skip, BLOCK - skip, abort.signal));
      this.error = undefined;
      failed = this.line(index * BLOCK + 1 + skip) === undefined;
    } catch (error) {
      if (!abort.signal.aborted) {
        this.error = error;
        failed = true;
      }
    }
    this.#inFlight.delete(index);
    if (this.#stopped) return;
    this.#changed();
    if (failed) {
      clearTimeout(this.#retry);
      this.#retry = setTimeout(() => this.#pump(), 2000);
    } else this.#pump();
  }

  #take(page: LogPage): void {
    this.total = Math.max(this.total, page.total);
    if (page.complete) this.complete = true;
    for (const line of page.lines) this.#put(line);
    this.#evict();
  }

  #put(line: LogLine): void {
    const index = blockOf(line.n);
    let block = this.#blocks.get(index);
    if (!block) {
      block = { lines: [], have: 0, styles: [] };
      this.#blocks.set(index, block);
    }
    const at = (line.n - 1) % BLOCK;
    if (block.lines[at] !== undefined) return;
    block.lines[at] = line;
    block.have += 1;
    if (block.styles.length > at) block.styles.length = at;
    // A block that begins in this one's last style has to be worked out again.
    if (at === BLOCK - 1 || block.have === BLOCK) for (let k = index + 1; this.#blocks.has(k); k += 1) this.#forget(k);
  }

  #forget(index: number): void {
    const block = this.#blocks.get(index);
    if (block) block.styles = [];
  }

  #evict(): void {
    if (this.#blocks.size <= KEEP_BLOCKS) return;
    const middle = blockOf(this.#want[0]);
    const tail = blockOf(this.total);
    const far = [...this.#blocks.keys()]
      .filter((k) => k !== tail)
      .sort((a, b) => Math.abs(b - middle) - Math.abs(a - middle));
    for (const k of far.slice(0, this.#blocks.size - KEEP_BLOCKS)) this.#blocks.delete(k);
  }

  /** Follows the log's end from what is known now, over lost connections, until it is over. */
  startFollow(): void {
    if (this.complete || this.#stream || this.#stopped) return;
    document.addEventListener('visibilitychange', this.#visibility);
    this.#connect();
  }

  #visibility = (): void => {
    clearTimeout(this.#hidden);
    if (document.hidden) {
      this.#hidden = setTimeout(() => {
        this.#stream?.close();
        this.#stream = undefined;
      }, HIDDEN_MS);
    } else if (!this.#stream) this.#connect();
  };

  #connect(): void {
    clearTimeout(this.#timer);
    if (this.complete || this.#stopped) return;
    const stream = new EventSource(this.#source.followUrl(this.total + 1));
    this.#stream = stream;
    stream.onopen = () => {
      this.follow = 'live';
      this.#changed();
    };
    stream.onmessage = (message) => {
      this.#failures = 0;
      for (const line of JSON.parse(String(message.data)) as LogLine[]) {
        this.total = Math.max(this.total, line.n);
        this.#put(line);
      }
      this.#evict();
      this.#changed();
    };
    stream.addEventListener('end', () => {
      stream.close();
      this.#stream = undefined;
      this.follow = 'ended';
      // The stream says that it is over; the log itself says how long it became.
      void this.open(Math.max(1, this.total));
    });
    stream.addEventListener('failed', (message) => {
      stream.close();
      this.#stream = undefined;
      this.follow = 'ended';
      const { code, message: text, hint } = (JSON.parse(String((message as MessageEvent).data)) as Failed).error;
      this.error = new ApiError(500, code, text, hint ?? null);
      this.#changed();
    });
    stream.onerror = () => {
      stream.close();
      if (this.#stream !== stream) return;
      this.#stream = undefined;
      this.follow = 'lost';
      const wait = RETRY_MS[Math.min(this.#failures, RETRY_MS.length - 1)] ?? 8000;
      this.#failures += 1;
      this.#timer = setTimeout(() => this.#connect(), wait);
      this.#changed();
    };
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#hidden);
    clearTimeout(this.#retry);
    document.removeEventListener('visibilitychange', this.#visibility);
    this.#stream?.close();
    this.#stream = undefined;
    for (const abort of this.#inFlight.values()) abort.abort();
  }
}

/** The style after a line, for the next one. A new step begins without colours, as in a new terminal. */
function after(line: LogLine | undefined, style: Style, next: LogLine | undefined): Style {
  if (line === undefined || (next !== undefined && next.step !== line.step)) return PLAIN;
  if (line.stream === 'system') return style;
  return read(line.text, style).style;
}
