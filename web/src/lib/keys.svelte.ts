// Keyboard commands: each part of the page registers its own, with a description for the help. The
// newest registration of a key wins. Two-key commands (`g g`) wait for the second key for a second.

export interface Command {
  /** `x`, `?`, `g g`, `Ctrl+f`; a capital letter means Shift. */
  keys: string;
  does: string;
  run: () => void;
}

let registered = $state.raw<{ group: string; commands: Command[] }[]>([]);

export const commands = {
  get all(): { group: string; commands: Command[] }[] {
    return registered;
  },
};

/** Registers commands until the returned function is called. */
export function register(group: string, list: Command[]): () => void {
  const entry = { group, commands: list };
  registered = [...registered, entry];
  return () => {
    registered = registered.filter((r) => r !== entry);
  };
}

let first: { key: string; at: number } | null = null;

const typing = (target: EventTarget | null): boolean =>
  target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));

function find(keys: string): Command | undefined {
  for (let i = registered.length - 1; i >= 0; i -= 1) {
    const hit = registered[i]?.commands.find((c) => c.keys === keys);
    if (hit) return hit;
  }
  return undefined;
}

export function startKeys(): void {
  document.addEventListener('keydown', (event) => {
    if (event.isComposing || event.altKey || event.metaKey) return;
    if (document.querySelector('dialog[open]') && event.key !== 'Escape') return;
    if (event.ctrlKey) {
      const hit = find(`Ctrl+${event.key.toLowerCase()}`);
      if (hit) {
        event.preventDefault();
        hit.run();
      }
      return;
    }
    if (typing(event.target)) return;
    const waiting = first && performance.now() - first.at < 1000 ? first.key : null;
    first = null;
    const hit = (waiting !== null ? find(`${waiting} ${event.key}`) : undefined) ?? find(event.key);
    if (hit) {
      event.preventDefault();
      hit.run();
      return;
    }
    const starts = registered.some((r) => r.commands.some((c) => c.keys.startsWith(`${event.key} `)));
    if (starts) first = { key: event.key, at: performance.now() };
  });
}
