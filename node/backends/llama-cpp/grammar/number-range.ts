/** Decimal numbers between two bounds, as patterns of digits. Pure. */
import type { Bound, NumberShape } from '../../../../protocols/inference/bodies/json-schema/shape.ts';
import { either } from './rules.ts';

/** Digits behind the point. Exclusive bounds are moved by one of the last. */
const FRACTION = 12;
const SCALE = 10n ** BigInt(FRACTION);
/** Integers have at most so many digits, all of which a double holds. */
const MAX_DIGITS = 15;
const LARGEST = 10n ** BigInt(MAX_DIGITS) - 1n;

/** An expression for the numbers that `shape` allows; it has a bound. Null where there is none that it can write. */
export function numberRange({ integer, minimum, maximum }: NumberShape): string | null {
  const lowest = minimum === null ? -LARGEST * SCALE : scaled(minimum, 1n, integer);
  const highest = maximum === null ? LARGEST * SCALE : scaled(maximum, -1n, integer);
  const range = integer ? integersBetween : decimalsBetween;
  const options: string[] = [];
  const below = highest < 0n ? -highest : 0n;
  if (lowest < 0n) options.push(...range(below === 0n && !integer ? 0n : below, -lowest).map((one) => `"-" ${one}`));
  if (highest >= 0n) options.push(...range(lowest > 0n ? lowest : 0n, highest));
  return options.length === 0 ? null : either(options);
}

/** A bound in units of the last digit, moved inwards to what can be written. */
function scaled({ value, exclusive }: Bound, inwards: 1n | -1n, integer: boolean): bigint {
  const exact = decimal(value);
  const unit = integer ? SCALE : 1n;
  const floor = exact >= 0n || exact % unit === 0n ? exact / unit : exact / unit - 1n;
  const onUnit = exact % unit === 0n;
  const inside = inwards === 1n ? (onUnit ? floor : floor + 1n) : floor;
  const moved = onUnit && exclusive ? inside + inwards : inside;
  return clamp(moved * unit);
}

function clamp(value: bigint): bigint {
  const most = LARGEST * SCALE;
  if (value > most) return most;
  return value < -most ? -most : value;
}

/** A number in units of the last digit. */
function decimal(value: number): bigint {
  const [mantissa = '0', exponent = '0'] = String(Math.abs(value)).split('e');
  const [whole = '0', fraction = ''] = mantissa.split('.');
  const shift = FRACTION + Number(exponent) - fraction.length;
  const digits = BigInt(whole + fraction);
  const magnitude = shift >= 0 ? digits * 10n ** BigInt(shift) : digits / 10n ** BigInt(-shift);
  return value < 0 ? -magnitude : magnitude;
}

/** Of bounds that are 0 or more, and whole. */
function integersBetween(low: bigint, high: bigint): string[] {
  return wholes(low / SCALE, high / SCALE);
}

/** Of bounds that are 0 or more. */
function decimalsBetween(low: bigint, high: bigint): string[] {
  if (low > high) return [];
  const [first, last] = [low / SCALE, high / SCALE];
  const [from, to] = [fractionDigits(low), fractionDigits(high)];
  if (first === last) return [`"${first}" ${fraction(between(from, to), from)}`];
  return [
    `"${first}" ${fraction(atLeast(from), from)}`,
    ...wholes(first + 1n, last - 1n).map((one) => `${one} ("." [0-9]{1,${FRACTION}})?`),
    `"${last}" ${fraction(atMost(to), '')}`,
  ];
}

/** The part behind the whole number; it may be missing where its least value is 0. */
function fraction(digits: string, least: string): string {
  return /^0*$/.test(least) ? `("." ${digits})?` : `"." ${digits}`;
}

function fractionDigits(value: bigint): string {
  return (value % SCALE).toString().padStart(FRACTION, '0').replace(/0+$/, '');
}

/** Digits behind a point that are no less than `digits`. */
function atLeast(digits: string, room = FRACTION): string {
  if (digits === '') return room === FRACTION ? `[0-9]{1,${room}}` : anyDigits(room);
  const first = Number(digits[0]);
  const same = `"${first}" ${atLeast(digits.slice(1), room - 1)}`.trim();
  return first === 9 ? same : `(${same} | [${first + 1}-9] ${anyDigits(room - 1)})`;
}

/** Digits behind a point that are no more than `digits`. */
function atMost(digits: string, room = FRACTION): string {
  if (digits === '') return room === FRACTION ? `"0"{1,${room}}` : room === 0 ? '' : `"0"{0,${room}}`;
  const first = Number(digits[0]);
  const rest = atMost(digits.slice(1), room - 1);
  const same = rest === '' ? `"${first}"` : `"${first}" (${rest})?`;
  return first === 0 ? same : `(${same} | [0-${first - 1}] ${anyDigits(room - 1)})`;
}

function between(low: string, high: string, room = FRACTION): string {
  if (low === '') {
    const most = atMost(high, room);
    return room === FRACTION || most === '' ? most : `(${most})?`;
  }
  const [first, last] = [Number(low[0]), Number(high[0] ?? '0')];
  if (first === last) return `"${first}" ${between(low.slice(1), high.slice(1), room - 1)}`.trim();
  const options = [`"${first}" ${atLeast(low.slice(1), room - 1)}`];
  if (last - first > 1) options.push(`[${first + 1}-${last - 1}] ${anyDigits(room - 1)}`);
  const rest = atMost(high.slice(1), room - 1);
  options.push(rest === '' ? `"${last}"` : `"${last}" (${rest})?`);
  return `(${options.map((one) => one.trim()).join(' | ')})`;
}

function anyDigits(room: number): string {
  return room === 0 ? '' : `[0-9]{0,${room}}`;
}

/** Whole numbers from `low` to `high`, both 0 or more, without leading zeros. */
function wholes(low: bigint, high: bigint): string[] {
  const options: string[] = [];
  for (let from = low; from <= high; ) {
    const length = String(from).length;
    const longest = 10n ** BigInt(length) - 1n;
    const to = high < longest ? high : longest;
    options.push(sameLength(String(from), String(to)));
    from = to + 1n;
  }
  return options;
}

/** Digit strings between two of the same length. */
function sameLength(low: string, high: string): string {
  if (low === '') return '';
  const free = (count: number): string => (count === 0 ? '' : ` [0-9]{${count}}`);
  if (/^0+$/.test(low) && /^9+$/.test(high)) return `[0-9]{${low.length}}`;
  const [first, last] = [Number(low[0]), Number(high[0])];
  const rest = low.length - 1;
  if (first === last) return `"${first}" ${sameLength(low.slice(1), high.slice(1))}`.trim();
  const lowest = /^0*$/.test(low.slice(1)) ? first : first + 1;
  const highest = /^9*$/.test(high.slice(1)) ? last : last - 1;
  const options: string[] = [];
  if (lowest > first) options.push(`"${first}" ${sameLength(low.slice(1), '9'.repeat(rest))}`.trim());
  if (lowest <= highest) options.push(`[${lowest}-${highest}]${free(rest)}`);
  if (highest < last) options.push(`"${last}" ${sameLength('0'.repeat(rest), high.slice(1))}`.trim());
  return either(options);
}
