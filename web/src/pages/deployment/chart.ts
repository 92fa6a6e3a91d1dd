// Arithmetic of the charts: scales, ticks, paths. Pure.

export interface Point {
  x: number;
  y: number;
}

/** A round step so that about `want` ticks fit into `span`. */
export function niceStep(span: number, want: number, steps: number[]): number {
  const raw = span / Math.max(1, want);
  return steps.find((s) => s >= raw) ?? steps[steps.length - 1] ?? 1;
}

const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 28_800, 86_400];

/** Ticks in seconds since the start. */
export function timeTicks(span: number, want: number): number[] {
  const step = niceStep(span, want, SECONDS);
  const out: number[] = [];
  for (let t = 0; t <= span + 0.001 && out.length < 100; t += step) out.push(t);
  return out;
}

export const elapsed = (s: number): string =>
  s >= 3600 ? `${Math.floor(s / 3600)}:${String(Math.floor((s % 3600) / 60)).padStart(2, '0')}:00` : `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, '0')}`;

/** The top of a lane: a round number above everything in it. */
export function top(values: number[], least: number): number {
  const most = Math.max(least, ...values.filter((v) => Number.isFinite(v)));
  const unit = 10 ** Math.floor(Math.log10(most));
  for (const k of [1, 1.5, 2, 3, 4, 5, 6, 8, 10]) if (k * unit >= most * 1.02) return k * unit;
  return 10 * unit;
}

/** A line through points; a null starts a new piece, so that a gap is a gap. */
export function line(points: (Point | null)[]): string {
  let path = '';
  let pen = false;
  for (const p of points) {
    if (p === null) pen = false;
    else {
      path += `${pen ? 'L' : 'M'}${p.x.toFixed(1)} ${p.y.toFixed(1)}`;
      pen = true;
    }
  }
  return path;
}

/** Levels that hold until the next point. */
export function stairs(points: Point[], end: number): string {
  const first = points[0];
  if (!first) return '';
  let path = `M${first.x.toFixed(1)} ${first.y.toFixed(1)}`;
  for (const p of points.slice(1)) path += `H${p.x.toFixed(1)}V${p.y.toFixed(1)}`;
  return `${path}H${end.toFixed(1)}`;
}
