/** Texts of a pattern, as they stand between the quotes of a JSON string. */
import type { Pattern } from '../../../../protocols/inference/bodies/json-schema/shape.ts';
import { classOf, othersThan, type Range, writtenPlainly } from './code-ranges.ts';
import { either, type Rules, repeated } from './rules.ts';

/** How characters are written that cannot stand in a JSON string as they are. */
const ESCAPES: readonly (readonly [code: number, text: string])[] = [
  [0x22, '"\\\\\\""'],
  [0x5c, '"\\\\\\\\"'],
  [0x0a, '"\\\\n"'],
  [0x0d, '"\\\\r"'],
  [0x09, '"\\\\t"'],
];

/** The expression; empty for the empty text. */
export function patternRule(rules: Rules, pattern: Pattern): string {
  switch (pattern.kind) {
    case 'set':
      return rules.add(setRule(pattern.not ? othersThan(pattern.ranges) : pattern.ranges, pattern.not));
    case 'sequence':
      return pattern.parts
        .map((part) => patternRule(rules, part))
        .filter((part) => part !== '')
        .join(' ');
    case 'choice': {
      const options = pattern.options.map((option) => patternRule(rules, option));
      return options.length === 1
        ? (options[0] ?? '')
        : either(options.map((option) => (option === '' ? '""' : option)));
    }
    case 'repeat': {
      const part = rules.add(patternRule(rules, pattern.part));
      return repeated(part, pattern.least, pattern.most);
    }
  }
}

/** Every character of these ranges that can be written. Line breaks only where they are named, not where they are left. */
function setRule(ranges: readonly Range[], isRest: boolean): string {
  const written = writtenPlainly(ranges);
  const options = ESCAPES.filter(
    ([code]) => (!isRest || code >= 0x20) && ranges.some(([from, to]) => from <= code && code <= to),
  ).map(([, text]) => text);
  if (written.length > 0) options.unshift(classOf(written));
  // A set of nothing that can be written: no text gets past it.
  return options.length === 0 ? '[^\\x00-\\U0010FFFF]' : either(options);
}
