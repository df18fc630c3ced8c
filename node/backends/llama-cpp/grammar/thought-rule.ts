/** Lets a model think before it keeps to a format. */
import { classOf, othersThan, rangesOf } from './code-ranges.ts';
import { literal, type Rules } from './rules.ts';

/** A thought up to and with its closing tag, from within; then a few blanks. */
export function thoughtRule(rules: Rules, close: string): string {
  const chars = [...new Set(close)];
  const state = (matched: number): string => `thought${matched}`;
  for (let matched = 0; matched < close.length; matched += 1) {
    // After `matched` characters of the tag: which of its beginnings is seen once `char` follows?
    const options = chars.map((char) => {
      const seen = overlap(close.slice(0, matched) + char, close);
      if (seen === 0) return `${literal(char)} ${state(0)}`;
      return seen === close.length ? literal(char) : `${literal(char)} ${state(seen)}`;
    });
    rules.shared(state(matched), () => [...options, `${classOf(othersThan(rangesOf(chars)))} ${state(0)}`].join(' | '));
  }
  return rules.shared('thought', () => `${state(0)} [ \\t\\r\\n]{0,4}`);
}

/** Length of the longest end of `text` that begins `tag`. */
function overlap(text: string, tag: string): number {
  for (let length = Math.min(text.length, tag.length); length > 0; length -= 1) {
    if (text.endsWith(tag.slice(0, length))) return length;
  }
  return 0;
}
