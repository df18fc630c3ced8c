/** The rules of JSON itself: bounded wherever a model could go on without saying anything. */
import { classOf, othersThan, writtenPlainly } from './code-ranges.ts';
import { MAX_REPEAT, type Rules, repeated } from './rules.ts';

/** Blanks between tokens: none, one, or a new line with its indentation. */
export function blank(rules: Rules): string {
  return rules.shared('ws', () => '| " " | "\\n" [ \\t]{0,24}');
}

export function colon(rules: Rules): string {
  return rules.shared('colon', () => '":" " "?');
}

/** One character of a string, a code point each; no lone surrogates. */
export function stringCharacter(rules: Rules): string {
  const escaped = '"\\\\" (["\\\\/bfnrt] | "u" ([0-9a-cefA-CEF] [0-9a-fA-F]{3} | [dD] [0-7] [0-9a-fA-F]{2}))';
  return rules.shared('char', () => `${classOf(writtenPlainly(othersThan([])))} | ${escaped}`);
}

/** Any text. */
export function string(rules: Rules): string {
  return rules.shared('string', () => `"\\"" ${stringCharacter(rules)}* "\\""`);
}

/** A text of so many code points. */
export function stringOfLength(rules: Rules, least: number, most: number | null): string {
  if (least === 0 && most === null) return string(rules);
  const exactly = (count: number): string => {
    const whole = Math.floor(count / CHUNK);
    const parts = [whole > 0 ? repeated(chunk(rules), whole, whole) : '', repeatedExactly(rules, count % CHUNK)];
    return parts.filter((part) => part !== '').join(' ');
  };
  const more = most === null ? `${stringCharacter(rules)}*` : upTo(rules, most - least);
  return rules.add(['"\\""', exactly(least), more, '"\\""'].filter((part) => part !== '').join(' '));
}

export function number(rules: Rules): string {
  return rules.shared('number', () => `${integer(rules)} ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?`);
}

/** Within what doubles hold exactly. */
export function integer(rules: Rules): string {
  return rules.shared('integer', () => '"-"? ("0" | [1-9] [0-9]{0,14})');
}

export function anyValue(rules: Rules): string {
  return rules.shared(
    'value',
    () => `${anyObject(rules)} | ${anyArray(rules)} | ${string(rules)} | ${number(rules)} | "true" | "false" | "null"`,
  );
}

export function anyObject(rules: Rules): string {
  return rules.shared('object', () => {
    const [ws, member] = [
      blank(rules),
      rules.shared('member', () => `${string(rules)} ${colon(rules)} ${anyValue(rules)}`),
    ];
    return `"{" ${ws} ("}" | ${member} ("," ${ws} ${member})* ${ws} "}")`;
  });
}

function anyArray(rules: Rules): string {
  return rules.shared('array', () => {
    const [ws, value] = [blank(rules), anyValue(rules)];
    return `"[" ${ws} ("]" | ${value} ("," ${ws} ${value})* ${ws} "]")`;
  });
}

/** llama.cpp writes repetitions out: long ones are made of chunks that all of them share. */
const CHUNK = Math.min(500, MAX_REPEAT);

function chunk(rules: Rules): string {
  return rules.shared('chars', () => repeated(stringCharacter(rules), CHUNK, CHUNK));
}

function repeatedExactly(rules: Rules, count: number): string {
  return count === 0 ? '' : repeated(stringCharacter(rules), count, count);
}

function upTo(rules: Rules, count: number): string {
  const char = stringCharacter(rules);
  if (count < CHUNK) return count === 0 ? '' : repeated(char, 0, count);
  const whole = Math.min(Math.floor(count / CHUNK), MAX_REPEAT);
  const full = repeated(chunk(rules), whole, whole);
  const some = whole === 1 ? '' : `${repeated(chunk(rules), 0, whole - 1)} `;
  const rest = count % CHUNK === 0 ? '' : ` ${repeated(char, 0, count % CHUNK)}`;
  return `(${full}${rest} | ${some}${repeated(char, 0, CHUNK - 1)})`;
}
