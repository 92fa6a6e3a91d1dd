// The live connection: one event stream for the whole tab. It is closed while the tab is hidden (a
// browser allows six connections to a server over all its tabs) and when it comes back, listeners
// get `resync`, because what they show may be old.

import type { EventView } from './types.ts';

export type LiveState = 'off' | 'connecting' | 'live' | 'lost';
type Listener = (event: EventView | 'resync') => void;

const HIDDEN_MS = 20_000;
const RETRY_MS = [500, 1000, 2000, 5000, 10_000];

class Live {
  state = $state<LiveState>('off');
  #source: EventSource | undefined;
  #listeners = new Set<Listener>();
  #failures = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #hidden: ReturnType<typeof setTimeout> | undefined;
  #wanted = false;
  #missed = false;
  #last: number | null = null;

  listen(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  start(): void {
    if (this.#wanted) return;
    this.#wanted = true;
    document.addEventListener('visibilitychange', this.#visibility);
    this.#open();
  }

  stop(): void {
    this.#wanted = false;
    document.removeEventListener('visibilitychange', this.#visibility);
    this.#close();
    this.state = 'off';
  }

  #visibility = (): void => {
    clearTimeout(this.#hidden);
    if (document.hidden) {
      this.#hidden = setTimeout(() => {
        this.#close();
        this.#missed = true;
      }, HIDDEN_MS);
    } else if (!this.#source && this.#wanted) this.#open();
  };

  #close(): void {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = undefined;
  }

  #open(): void {
    this.#close();
    if (!this.#wanted) return;
    if (this.state !== 'lost') this.state = 'connecting';
    const source = new EventSource(this.#last === null ? '/api/events' : `/api/events?after=${this.#last}`);
    this.#source = source;
    source.onopen = () => {
      this.#failures = 0;
      this.state = 'live';
      if (this.#missed) {
        this.#missed = false;
        this.#tell('resync');
      }
    };
    source.onmessage = (message) => {
      try {
        const event = JSON.parse(String(message.data)) as EventView;
        this.#last = event.seq;
        this.#tell(event);
      } catch {
        // An event that this version can't read: what it was about is fetched again by `resync`.
        this.#tell('resync');
      }
    };
    source.onerror = () => {
      this.#missed = true;
      this.state = 'lost';
      source.close();
      if (this.#source !== source) return;
      this.#source = undefined;
      const wait = RETRY_MS[Math.min(this.#failures, RETRY_MS.length - 1)] ?? 10_000;
      this.#failures += 1;
      this.#timer = setTimeout(() => this.#open(), wait);
    };
  }

  #tell(event: EventView | 'resync'): void {
    for (const listener of [...this.#listeners]) listener(event);
  }
}

export const live = new Live();
