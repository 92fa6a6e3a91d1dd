// How values are written for people. Pure: the present time is an argument.

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86_400;

/** `42 s`, `3 m 05 s`, `2 h 07 m`, `4 d 3 h`. Under ten seconds with one decimal. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return '–';
  const s = Math.max(0, seconds);
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 9.95) return `${s.toFixed(1)} s`;
  const whole = Math.round(s);
  if (whole < MINUTE) return `${whole} s`;
  if (whole < HOUR) return `${Math.floor(whole / MINUTE)} m ${pad(whole % MINUTE)} s`;
  if (whole < DAY) return `${Math.floor(whole / HOUR)} h ${pad(Math.floor((whole % HOUR) / MINUTE))} m`;
  return `${Math.floor(whole / DAY)} d ${Math.floor((whole % DAY) / HOUR)} h`;
}

const pad = (n: number): string => String(n).padStart(2, '0');

/** Seconds between two times; up to `now` if the second is missing. */
export function took(from: string | null, to: string | null, now: number): number | null {
  if (from === null) return null;
  const end = to === null ? now : Date.parse(to);
  return Math.max(0, (end - Date.parse(from)) / 1000);
}

/** `just now`, `4 min ago`, `3 h ago`, `6 d ago`, then the date. */
export function ago(time: string, now: number): string {
  const s = (now - Date.parse(time)) / 1000;
  if (s < 45) return 'just now';
  if (s < HOUR) return `${Math.max(1, Math.round(s / MINUTE))} min ago`;
  if (s < DAY) return `${Math.round(s / HOUR)} h ago`;
  if (s < 14 * DAY) return `${Math.round(s / DAY)} d ago`;
  return time.slice(0, 10);
}

/** Local date and time with seconds, for titles. */
export function full(time: string): string {
  const d = new Date(time);
  return `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())} ${clock(time)}`;
}

/** Local `14:03:09`. */
export function clock(time: string): string {
  const d = new Date(time);
  return `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`;
}

export function bytes(n: number): string {
  if (n < 1000) return `${n} B`;
  const units = ['kB', 'MB', 'GB', 'TB'];
  let value = n;
  let unit = -1;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit] ?? 'B'}`;
}

export const count = (n: number): string => n.toLocaleString('en-US');

/** A share as percent, with as many decimals as it deserves: `8.4 %`, `12 %`, `0 %`. */
export function percent(share: number): string {
  const p = share * 100;
  if (p !== 0 && Math.abs(p) < 0.1) return `${p.toFixed(2)}\u00a0%`;
  return Math.abs(p - Math.round(p)) < 0.05 ? `${Math.round(p)}\u00a0%` : `${p.toFixed(1)}\u00a0%`;
}

export const short = (sha: string): string => sha.slice(0, 8);

/** One word's plural: `1 job`, `3 jobs`. */
export const many = (n: number, one: string, more = `${one}s`): string => `${count(n)} ${n === 1 ? one : more}`;
