/** Durations and sizes as people write them. Pure. */

const DURATION_UNITS_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};
/** `GB` means what memory is sold in: powers of 1024. */
const SIZE_UNITS: Readonly<Record<string, number>> = { k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };
/** Timers hold no more milliseconds. */
const LONGEST_MS = 2 ** 31 - 1;

/** `30s`, `10m`, `2h`, a bare number of seconds; `-1` and `forever` are Infinity. Null when it is none of these. */
export function durationMs(text: string): number | null {
  if (text === '-1' || text === 'forever') return Number.POSITIVE_INFINITY;
  const match = /^(\d{1,12}(?:\.\d{1,3})?)(ms|s|m|h|d)?$/.exec(text);
  if (match === null) return null;
  const [, count = '', unit = 's'] = match;
  const ms = Math.round(Number(count) * (DURATION_UNITS_MS[unit] ?? 0));
  return ms > LONGEST_MS ? null : ms;
}

/** `8GiB`, `8GB`, `8g`, `512MiB`, a bare number of bytes. Null when it is none of these. */
export function sizeBytes(text: string): number | null {
  const match = /^(\d{1,15}(?:\.\d{1,3})?) ?(?:([kmgt])(?:i?b)?|b)?$/i.exec(text);
  if (match === null) return null;
  const [, count = '', unit = ''] = match;
  const bytes = Math.round(Number(count) * (SIZE_UNITS[unit.toLowerCase()] ?? 1));
  return Number.isSafeInteger(bytes) ? bytes : null;
}
