/** Names of an object's further members: any but those that it declares. */
import { classOf, othersThan, rangesOf, writtenPlainly } from './code-ranges.ts';
import type { Rules } from './rules.ts';

const MAX_CHARS = 64;

/** A quoted name that is none of `names`. */
export function otherName(rules: Rules, names: readonly string[]): string {
  return `"\\"" ${rules.add(after(rules, names))}`;
}

/** What may follow up to the closing quote, when `names` are what must not be completed. */
function after(rules: Rules, names: readonly string[]): string {
  const [...taken] = new Set(names.filter((name) => name !== '').map((name) => [...name][0] ?? ''));
  const plain = taken.filter((char) => isPlain(char));
  const options = plain.map((char) => {
    const rests = names.filter((name) => name.startsWith(char)).map((name) => name.slice(char.length));
    return `${classOf(rangesOf([char]))} ${rules.add(after(rules, rests))}`;
  });
  const any = rules.shared('name-char', () => classOf(writtenPlainly(othersThan([]))));
  options.push(`${classOf(writtenPlainly(othersThan(rangesOf(taken))))} ${any}{0,${MAX_CHARS}} "\\""`);
  if (!names.includes('')) options.push('"\\""');
  return options.join(' | ');
}

/** Only such characters as JSON can write in one way. */
function isPlain(char: string): boolean {
  return writtenPlainly(rangesOf([char])).length > 0;
}
