// The present time as state, for ages and running durations: ticks once a second while it is shown.

let now = $state(Date.now());
let users = 0;
let timer: ReturnType<typeof setInterval> | undefined;

export const clockNow = {
  get ms(): number {
    return now;
  },
};

/** Keeps the clock ticking until the returned function is called. */
export function tick(): () => void {
  users += 1;
  now = Date.now();
  timer ??= setInterval(() => {
    if (!document.hidden) now = Date.now();
  }, 1000);
  return () => {
    users -= 1;
    if (users === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  };
}
