/**
 * Sets of characters, written as the code points that are in them. Never as those that are not: llama.cpp would let byte
 * sequences pass there that are no UTF-8, and one character would come out as several.
 */

export type Range = readonly [from: number, to: number];

const LAST_CODE = 0x10ffff;
const SURROGATES: Range = [0xd800, 0xdfff];

/** What never stands in a JSON string as it is. */
const UNWRITTEN: readonly Range[] = [[0, 0x1f], [0x22, 0x22], [0x5c, 0x5c], [0x7f, 0x7f], SURROGATES];

/** All characters but these. */
export function othersThan(ranges: readonly Range[]): Range[] {
  return subtract([[0, LAST_CODE]], [SURROGATES, ...ranges]);
}

/** Those of them that stand in a JSON string as they are. */
export function writtenPlainly(ranges: readonly Range[]): Range[] {
  return subtract(ranges, UNWRITTEN);
}

export function rangesOf(chars: Iterable<string>): Range[] {
  return [...chars].map((char) => [char.codePointAt(0) ?? 0, char.codePointAt(0) ?? 0]);
}

/** The class of GBNF; there must be a character in it. */
export function classOf(ranges: readonly Range[]): string {
  return `[${ranges.map(([from, to]) => (from === to ? escaped(from) : `${escaped(from)}-${escaped(to)}`)).join('')}]`;
}

function subtract(ranges: readonly Range[], without: readonly Range[]): Range[] {
  return without.reduce<Range[]>(
    (left, [from, to]) =>
      left.flatMap(([first, last]) => {
        const parts: Range[] = [
          [first, Math.min(last, from - 1)],
          [Math.max(first, to + 1), last],
        ];
        return parts.filter(([a, b]) => a <= b);
      }),
    [...ranges],
  );
}

function escaped(code: number): string {
  return code < 0x100
    ? `\\x${code.toString(16).padStart(2, '0').toUpperCase()}`
    : `\\U${code.toString(16).padStart(8, '0').toUpperCase()}`;
}
