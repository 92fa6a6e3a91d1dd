// Data that a page shows: fetched, kept while it is fetched again, never shown out of order.
// A newer load aborts the older one, and the last good data stays visible beside an error.

import { untrack } from 'svelte';

import { live } from './live.svelte.ts';
import type { EventView } from './types.ts';

export class Resource<T> {
  data = $state.raw<T | undefined>(undefined);
  error = $state.raw<unknown>(undefined);
  loading = $state(false);
  #abort: AbortController | undefined;
  #load: ((signal: AbortSignal) => Promise<T>) | undefined;
  #again = false;
  /** How long the last load took; what is slow to load is loaded less often. */
  took = 0;

  /** Loads by `load`; forgets the present data first if `fresh`. */
  async run(load: (signal: AbortSignal) => Promise<T>, fresh: boolean): Promise<void> {
    this.#abort?.abort();
    const abort = new AbortController();
    this.#abort = abort;
    this.#load = load;
    this.#again = false;
    if (fresh) {
      this.data = undefined;
      this.error = undefined;
    }
    this.loading = true;
    const start = performance.now();
    try {
      const data = await load(abort.signal);
      if (this.#abort !== abort) return;
      this.data = data;
      this.error = undefined;
    } catch (error) {
      if (this.#abort !== abort) return;
      this.error = error;
    }
    this.loading = false;
    this.took = performance.now() - start;
    this.#abort = undefined;
    if (this.#again) void this.reload();
  }

  /** Loads again. Calls during a load are joined into one load after it. */
  async reload(): Promise<void> {
    if (this.#load === undefined) return;
    if (this.#abort) {
      this.#again = true;
      return;
    }
    await this.run(this.#load, false);
  }

  stop(): void {
    this.#abort?.abort();
    this.#abort = undefined;
  }
}

/**
 * A resource of a component: loads whenever what `key` returns changes, and again when an event
 * arrives that `when` accepts (joined within 150 ms, or four times what a load takes) or the live connection was lost and came back.
 */
export function resource<K, T>(
  key: () => K,
  load: (key: K, signal: AbortSignal) => Promise<T>,
  when?: (event: EventView) => boolean,
): Resource<T> {
  const it = new Resource<T>();
  let last: string | undefined;
  $effect(() => {
    const now = key();
    const text = JSON.stringify(now);
    const fresh = text !== last;
    last = text;
    untrack(() => void it.run((signal) => load(now, signal), fresh));
    return () => it.stop();
  });
  if (when) {
    $effect(() => {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const stop = live.listen((event) => {
        if (event !== 'resync' && !when(event)) return;
        timer ??= setTimeout(() => {
          timer = undefined;
          void it.reload();
        }, Math.max(150, it.took * 4));
      });
      return () => {
        stop();
        clearTimeout(timer);
      };
    });
  }
  return it;
}

/** Loads again every `ms` while `active` says so and the tab is shown: for what changes without events. */
export function refresh<T>(it: Resource<T>, active: () => boolean, ms: number): void {
  $effect(() => {
    if (!active()) return undefined;
    const timer = setInterval(() => {
      if (!document.hidden) void it.reload();
    }, ms);
    return () => clearInterval(timer);
  });
}
