/** The trend of a series that has outliers: Theil-Sen, with the interval that holds the true slope in 95 of 100 cases. */
import { median } from './quantile.ts';

export interface Point {
  readonly x: number;
  readonly y: number;
}

export interface Slope {
  /** y per x. */
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

/** Of fewer than three points nothing can be said: the interval is infinite. */
export function slopeOf(points: readonly Point[]): Slope {
  const slopes: number[] = [];
  for (const [i, a] of points.entries()) {
    for (const b of points.slice(i + 1)) if (a.x !== b.x) slopes.push((b.y - a.y) / (b.x - a.x));
  }
  slopes.sort((a, b) => a - b);
  const n = points.length;
  const margin = 1.96 * Math.sqrt((n * (n - 1) * (2 * n + 5)) / 18);
  const low = Math.floor((slopes.length - margin) / 2);
  const high = Math.ceil((slopes.length + margin) / 2);
  return {
    value: slopes.length === 0 ? Number.NaN : median(slopes),
    low: (n < 3 ? undefined : slopes[low]) ?? Number.NEGATIVE_INFINITY,
    high: (n < 3 ? undefined : slopes[high]) ?? Number.POSITIVE_INFINITY,
  };
}
