/** From shapes to grammar rules: whatever the rules allow is a valid value of the schema. */
import type {
  ArrayShape,
  Member,
  ObjectShape,
  SchemaShapes,
  Shape,
} from '../../../../protocols/inference/bodies/json-schema/shape.ts';
import { anyObject, anyValue, blank, colon, integer, number, string, stringOfLength } from './json-rules.ts';
import { numberRange } from './number-range.ts';
import { otherName } from './other-names.ts';
import { patternRule } from './pattern-rule.ts';
import { either, literal, MAX_REPEAT, oneOfTexts, type Rules, repeated } from './rules.ts';
import { STRING_FORMAT_RULES } from './string-formats.ts';

/** The rule for values of a schema. `prefix` keeps the rules of several schemas in one grammar apart. */
export function schemaRule(rules: Rules, { root, named }: SchemaShapes, prefix: string): string {
  return new SchemaGrammar(rules, named, prefix).rule(root);
}

class SchemaGrammar {
  readonly #rules: Rules;
  readonly #named: ReadonlyMap<string, Shape>;
  readonly #prefix: string;
  readonly #order: readonly string[];

  constructor(rules: Rules, named: ReadonlyMap<string, Shape>, prefix: string) {
    this.#rules = rules;
    this.#named = named;
    this.#prefix = prefix;
    this.#order = [...named.keys()];
  }

  rule(shape: Shape): string {
    const rules = this.#rules;
    switch (shape.kind) {
      case 'any':
        return anyValue(rules);
      case 'boolean':
        return '("true" | "false")';
      case 'null':
        return '"null"';
      case 'literal':
        return oneOfTexts(
          rules,
          shape.values.map((value) => JSON.stringify(value)),
        );
      case 'union':
        return rules.add(either(shape.options.map((option) => this.rule(option))));
      case 'named':
        return this.#reference(shape.name);
      case 'string':
        if (shape.format !== null) return this.#format(shape.format);
        if (shape.pattern !== null) return rules.add(`"\\"" ${patternRule(rules, shape.pattern)} "\\""`);
        return stringOfLength(rules, shape.minLength, shape.maxLength);
      case 'number':
        if (shape.minimum === null && shape.maximum === null) return shape.integer ? integer(rules) : number(rules);
        return rules.add(numberRange(shape) ?? '"0"');
      case 'object':
        return this.#object(shape);
      case 'array':
        return this.#array(shape);
    }
  }

  #reference(name: string): string {
    const shape: Shape = this.#named.get(name) ?? { kind: 'any' };
    return this.#rules.shared(`${this.#prefix}ref${this.#order.indexOf(name)}`, () => this.rule(shape));
  }

  #format(format: keyof typeof STRING_FORMAT_RULES): string {
    return this.#rules.shared(`format-${format}`, () => `"\\"" ${STRING_FORMAT_RULES[format]} "\\""`);
  }

  #object({ members, rest }: ObjectShape): string {
    const rules = this.#rules;
    if (members.length === 0 && rest?.kind === 'any') return anyObject(rules);
    const ws = blank(rules);
    const declared = members.map((member) => this.#member(member));
    const other = rest === null ? null : this.#otherMember(members, rest);
    // Written from the end: what follows once a member stands there, and which members may be the next.
    let after = rules.add(other === null ? `${ws} "}"` : `("," ${ws} ${other})* ${ws} "}"`);
    let next = other === null ? null : rules.add(`${other} ${after}`);
    let closes = true;
    for (const [index, { required }] of [...members.entries()].reverse()) {
      const written = `${declared[index] ?? ''} ${after}`;
      next = rules.add(required || next === null ? written : `${written} | ${next}`);
      closes &&= !required;
      after = rules.add(closes ? `"," ${ws} ${next} | ${ws} "}"` : `"," ${ws} ${next}`);
    }
    const options = [...(next === null ? [] : [next]), ...(closes ? ['"}"'] : [])];
    return rules.add(`"{" ${ws} ${either(options)}`);
  }

  #member({ name, shape }: Member): string {
    return this.#rules.add(`${literal(JSON.stringify(name))} ${colon(this.#rules)} ${this.rule(shape)}`);
  }

  #otherMember(members: readonly Member[], rest: Shape): string {
    const rules = this.#rules;
    const name =
      members.length === 0
        ? string(rules)
        : rules.add(
            otherName(
              rules,
              members.map((member) => member.name),
            ),
          );
    return rules.add(`${name} ${colon(rules)} ${this.rule(rest)}`);
  }

  #array({ prefix, items, minItems, maxItems }: ArrayShape): string {
    const rules = this.#rules;
    const ws = blank(rules);
    const first = prefix.map((item) => this.rule(item)).join(` "," ${ws} `);
    const most = items === null ? 0 : maxItems === null ? null : Math.min(maxItems, MAX_REPEAT);
    if (items === null || most === 0) return rules.add(first === '' ? `"[" ${ws} "]"` : `"[" ${ws} ${first} ${ws} "]"`);
    const item = this.rule(items);
    const further = rules.add(`"," ${ws} ${item}`);
    if (first !== '') return rules.add(`"[" ${ws} ${first} ${repeated(further, minItems, most)} ${ws} "]"`);
    const list = `${item} ${repeated(further, Math.max(0, minItems - 1), most === null ? null : most - 1)} ${ws} "]"`;
    return rules.add(minItems > 0 ? `"[" ${ws} ${list}` : `"[" ${ws} ("]" | ${list})`);
  }
}
