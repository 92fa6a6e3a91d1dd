// What a person chose for this browser: theme, and how logs are shown. Kept in local storage; a
// browser that refuses to store keeps it for this page only.

export type Theme = 'system' | 'light' | 'dark';
export type Times = 'off' | 'relative' | 'clock';

interface Stored {
  theme: Theme;
  wrap: boolean | null;
  times: Times;
}

const KEY = 'pipeyard';

function load(): Stored {
  const base: Stored = { theme: 'system', wrap: null, times: 'off' };
  try {
    const found = JSON.parse(localStorage.getItem(KEY) ?? '{}') as Partial<Stored>;
    if (found.theme === 'light' || found.theme === 'dark') base.theme = found.theme;
    if (typeof found.wrap === 'boolean') base.wrap = found.wrap;
    if (found.times === 'relative' || found.times === 'clock') base.times = found.times;
  } catch {
    // Nothing stored, or not readable: the defaults stand.
  }
  return base;
}

class Settings {
  #now = $state(load());

  get theme(): Theme {
    return this.#now.theme;
  }
  set theme(theme: Theme) {
    this.#now.theme = theme;
    this.#save();
    this.apply();
  }

  /** Lines wrap on narrow screens unless the person said otherwise. */
  get wrap(): boolean {
    return this.#now.wrap ?? innerWidth < 700;
  }
  set wrap(wrap: boolean) {
    this.#now.wrap = wrap;
    this.#save();
  }

  get times(): Times {
    return this.#now.times;
  }
  set times(times: Times) {
    this.#now.times = times;
    this.#save();
  }

  apply(): void {
    if (this.#now.theme === 'system') delete document.documentElement.dataset['theme'];
    else document.documentElement.dataset['theme'] = this.#now.theme;
  }

  #save(): void {
    try {
      localStorage.setItem(KEY, JSON.stringify(this.#now));
    } catch {
      // Refused: it holds for this page.
    }
  }
}

export const settings = new Settings();
