// Addresses of the app on the History API: a table of patterns, the present place as state, and
// links that a plain click follows without a reload. An unknown address is a page that says so.

export type Params = Record<string, string>;

export interface Place {
  name: string;
  params: Params;
  query: URLSearchParams;
  hash: string;
  path: string;
}

const table: [pattern: string, name: string][] = [
  ['/', 'runs'],
  ['/login', 'login'],
  ['/runs', 'runs'],
  ['/runs/:run', 'run'],
  ['/runs/:run/:job', 'run'],
  ['/deployments', 'deployments'],
  ['/deployments/:id', 'deployment'],
  ['/environments', 'environments'],
  ['/dora', 'dora'],
  ['/incidents', 'incidents'],
  ['/runners', 'runners'],
  ['/repos', 'repos'],
  ['/secrets', 'secrets'],
  ['/audit', 'audit'],
];

export function match(path: string): { name: string; params: Params } {
  const parts = path.split('/').filter((p) => p !== '');
  for (const [pattern, name] of table) {
    const wanted = pattern.split('/').filter((p) => p !== '');
    if (wanted.length !== parts.length) continue;
    const params: Params = {};
    const fits = wanted.every((want, i) => {
      const part = parts[i] ?? '';
      if (!want.startsWith(':')) return want === part;
      try {
        params[want.slice(1)] = decodeURIComponent(part);
        return true;
      } catch {
        return false;
      }
    });
    if (fits) return { name, params };
  }
  return { name: 'missing', params: {} };
}

export function placeOf(url: URL): Place {
  return { ...match(url.pathname), query: url.searchParams, hash: url.hash, path: url.pathname };
}

let current = $state.raw<Place>(placeOf(new URL(typeof location === 'undefined' ? 'http://x/' : location.href)));

export const place = {
  get now(): Place {
    return current;
  },
};

function update(): void {
  current = placeOf(new URL(location.href));
}

/** Goes to an address of the app. `replace` leaves no entry in the history. */
export function go(to: string, options: { replace?: boolean; keepScroll?: boolean } = {}): void {
  const url = new URL(to, location.href);
  const samePage = url.pathname === location.pathname;
  if (options.replace) history.replaceState(null, '', url);
  else if (url.href !== location.href) history.pushState(null, '', url);
  update();
  if (!samePage && !options.keepScroll) window.scrollTo(0, 0);
}

/** Changes some of the query, keeping the rest; empty values are removed. */
export function setQuery(changes: Record<string, string | null>): void {
  const url = new URL(location.href);
  for (const [key, value] of Object.entries(changes)) {
    if (value === null || value === '') url.searchParams.delete(key);
    else url.searchParams.set(key, value);
  }
  go(url.href, { replace: true });
}

/**
 * The address of a run or of one of its jobs. A dot of a name is escaped, because a server answers a
 * path with an ending as a file.
 */
export const runPath = (run: number | string, job?: string): string =>
  job === undefined ? `/runs/${run}` : `/runs/${run}/${encodeURIComponent(job).replaceAll('.', '%2E')}`;

/** Starts listening. Called once. */
export function startRouter(): void {
  addEventListener('popstate', update);
  addEventListener('hashchange', update);
  document.addEventListener('click', (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = event.target instanceof Element ? event.target.closest('a') : null;
    if (!link || link.target !== '' || link.hasAttribute('download')) return;
    const url = new URL(link.href, location.href);
    if (url.origin !== location.origin || url.pathname.startsWith('/api/')) return;
    event.preventDefault();
    go(url.href);
  });
}
