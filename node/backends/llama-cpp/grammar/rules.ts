/** A GBNF text as it is written: its rules by name, and the forms that its expressions take. */

/** llama.cpp allows no more in one repetition. */
export const MAX_REPEAT = 2000;

export class Rules {
  readonly #bodies = new Map<string, string>();
  #count = 0;

  /** A rule by a name of its own; the same name always means the same rule. `body` is asked for the first time only. */
  shared(name: string, body: () => string): string {
    if (!this.#bodies.has(name)) {
      // Taken before its body is written: it may refer to itself.
      this.#bodies.set(name, '');
      this.#bodies.set(name, body());
    }
    return name;
  }

  /** A new rule. */
  add(body: string): string {
    this.#count += 1;
    const name = `r${this.#count}`;
    this.#bodies.set(name, body);
    return name;
  }

  /** Whole text, its rule `root` being `root`. */
  text(root: string): string {
    return [`root ::= ${root}`, ...[...this.#bodies].map(([name, body]) => `${name} ::= ${body}`), ''].join('\n');
  }
}

/** Exactly this text. */
export function literal(text: string): string {
  const escaped = text
    .replace(/["\\]/g, '\\$&')
    .replace(/[\n\r\t]/g, (char) => ({ '\n': '\\n', '\r': '\\r' })[char] ?? '\\t');
  return `"${escaped}"`;
}

/** One of several; none is nothing at all. */
export function either(options: readonly string[]): string {
  return options.length === 1 && options[0] !== undefined ? options[0] : `(${options.join(' | ')})`;
}

/** `rule`, which must be one name or one bracketed form, so many times; `most` null for as often as one likes. */
export function repeated(rule: string, least: number, most: number | null): string {
  if (most === 0) return '';
  return most === null ? `${rule}{${least},}` : `${rule}{${least},${most}}`;
}

/** One of these texts. Beginnings that they share are written once: llama.cpp follows every alternative at once. */
export function oneOfTexts(rules: Rules, texts: readonly string[]): string {
  const byFirst = Map.groupBy(new Set(texts), firstCharacter);
  const options = [...byFirst.values()].map((group) => {
    const [first = ''] = group;
    if (group.length === 1) return literal(first);
    const shared = group.reduce(commonStart);
    const rests = group.map((text) => text.slice(shared.length));
    return `${literal(shared)} ${oneOfTexts(rules, rests)}`;
  });
  return rules.add(either(options));
}

function firstCharacter(text: string): string {
  const code = text.codePointAt(0);
  return code === undefined ? '' : String.fromCodePoint(code);
}

function commonStart(one: string, other: string): string {
  let length = 0;
  while (length < one.length && one[length] === other[length]) length += 1;
  // Never half of a character.
  return one.slice(0, length).isWellFormed() ? one.slice(0, length) : one.slice(0, length - 1);
}
