/** A reader of GBNF that writes random texts which a grammar allows: what a model could at worst come up with. */
import assert from 'node:assert/strict';

type Node =
  | { kind: 'text'; text: string }
  | { kind: 'class'; not: boolean; ranges: [number, number][] }
  | { kind: 'rule'; name: string }
  | { kind: 'sequence'; nodes: Node[] }
  | { kind: 'choice'; nodes: Node[] }
  | { kind: 'repeat'; node: Node; least: number; most: number };

/** Stands for "without end" in a repetition. */
const MANY = 6;
const MAX_DEPTH = 24;
/** What a class that excludes characters is filled from. */
const SAMPLES = [...' abcxyz019_-.,:;{}[]()<>/\\"\'!?éß漢🦉\u{10FFFF}\u0000\n\t\u007F'];

export class Gbnf {
  readonly #rules = new Map<string, Node>();
  /** Rules that a rule needs below it at least; those that cannot end have none. */
  readonly #heights = new Map<string, number>();

  constructor(text: string) {
    for (const line of text.split('\n')) {
      if (line === '') continue;
      const [, name, body] = /^([a-z0-9-]+) ::= (.*)$/i.exec(line) ?? assert.fail(`no rule: ${line}`);
      assert.ok(name !== undefined && body !== undefined && !this.#rules.has(name), `rule ${name} is there once`);
      this.#rules.set(name, new Reader(body).choice());
    }
    for (let grew = true; grew; ) {
      grew = false;
      for (const [name, node] of this.#rules) {
        const height = this.#height(node);
        if (height >= (this.#heights.get(name) ?? Number.POSITIVE_INFINITY)) continue;
        this.#heights.set(name, height);
        grew = true;
      }
    }
    for (const name of this.#rules.keys()) assert.ok(this.#heights.has(name), `rule ${name} comes to an end`);
  }

  /** @param random 0 to 1, like Math.random. */
  sample(random: () => number): string {
    return this.#write({ kind: 'rule', name: 'root' }, random, 0);
  }

  #height(node: Node): number {
    switch (node.kind) {
      case 'rule':
        assert.ok(this.#rules.has(node.name), `rule ${node.name} is there`);
        return 1 + (this.#heights.get(node.name) ?? Number.POSITIVE_INFINITY);
      case 'sequence':
        return Math.max(0, ...node.nodes.map((one) => this.#height(one)));
      case 'choice':
        return Math.min(...node.nodes.map((one) => this.#height(one)));
      case 'repeat':
        return node.least === 0 ? 0 : this.#height(node.node);
      default:
        return 0;
    }
  }

  #write(node: Node, random: () => number, depth: number): string {
    const pick = (count: number): number => Math.min(count - 1, Math.floor(random() * count));
    switch (node.kind) {
      case 'text':
        return node.text;
      case 'class':
        return characterOf(node, random);
      case 'rule':
        return this.#write(this.#rules.get(node.name) ?? assert.fail(node.name), random, depth + 1);
      case 'sequence':
        return node.nodes.map((one) => this.#write(one, random, depth)).join('');
      case 'choice': {
        const shortest = Math.min(...node.nodes.map((one) => this.#height(one)));
        const open = depth < MAX_DEPTH ? node.nodes : node.nodes.filter((one) => this.#height(one) === shortest);
        return this.#write(open[pick(open.length)] ?? assert.fail('no choice'), random, depth);
      }
      case 'repeat': {
        const room = depth < MAX_DEPTH ? Math.min(node.most - node.least, MANY) : 0;
        const count =
          node.least +
          (random() < 0.2 && node.most < 200 && depth < MAX_DEPTH ? node.most - node.least : pick(room + 1));
        return Array.from({ length: count }, () => this.#write(node.node, random, depth)).join('');
      }
    }
  }
}

function characterOf({ not, ranges }: Node & { kind: 'class' }, random: () => number): string {
  const inside = (char: string): boolean =>
    ranges.some(([from, to]) => (char.codePointAt(0) ?? 0) >= from && (char.codePointAt(0) ?? 0) <= to);
  const options = not
    ? SAMPLES.filter((char) => !inside(char))
    : ranges.flatMap(([from, to]) => [from, to, Math.floor((from + to) / 2)].map((code) => String.fromCodePoint(code)));
  return options[Math.min(options.length - 1, Math.floor(random() * options.length))] ?? assert.fail('empty class');
}

/** One rule's body. */
class Reader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  choice(): Node {
    const nodes = [this.#sequence()];
    while (this.#skip('|')) nodes.push(this.#sequence());
    return nodes.length === 1 && nodes[0] !== undefined ? nodes[0] : { kind: 'choice', nodes };
  }

  #sequence(): Node {
    const nodes: Node[] = [];
    for (;;) {
      this.#blanks();
      const char = this.#text[this.#at];
      if (char === undefined || char === '|' || char === ')') return { kind: 'sequence', nodes };
      nodes.push(this.#suffixed(this.#atom()));
    }
  }

  #atom(): Node {
    if (this.#skip('(')) {
      const inner = this.choice();
      assert.ok(this.#skip(')'), `closing bracket in ${this.#text}`);
      return inner;
    }
    if (this.#skip('"')) {
      let text = '';
      while (!this.#skip('"', false)) text += this.#character();
      return { kind: 'text', text };
    }
    if (this.#skip('[')) return this.#class();
    const [name] =
      /^[a-zA-Z0-9-]+/.exec(this.#text.slice(this.#at)) ?? assert.fail(`what is ${this.#text.slice(this.#at)}`);
    this.#at += name.length;
    return { kind: 'rule', name };
  }

  #class(): Node {
    const not = this.#skip('^', false);
    const ranges: [number, number][] = [];
    while (!this.#skip(']', false)) {
      const from = this.#character().codePointAt(0) ?? 0;
      const isRange = this.#text[this.#at] === '-' && this.#text[this.#at + 1] !== ']';
      if (isRange) this.#at += 1;
      ranges.push([from, isRange ? (this.#character().codePointAt(0) ?? 0) : from]);
    }
    return { kind: 'class', not, ranges };
  }

  #suffixed(node: Node): Node {
    const [suffix, least, comma, most] = /^(?:[?*+]|\{(\d+)(,?)(\d*)\})/.exec(this.#text.slice(this.#at)) ?? [''];
    this.#at += suffix.length;
    if (suffix === '') return node;
    if (suffix === '?') return { kind: 'repeat', node, least: 0, most: 1 };
    if (suffix === '*' || suffix === '+') return { kind: 'repeat', node, least: suffix === '*' ? 0 : 1, most: 1e9 };
    const upper = comma === '' ? Number(least) : most === '' ? 1e9 : Number(most);
    return { kind: 'repeat', node, least: Number(least), most: upper };
  }

  #character(): string {
    const rest = this.#text.slice(this.#at);
    const [all, short, long] = /^\\(?:x([0-9A-Fa-f]{2})|U([0-9A-Fa-f]{8})|.)/.exec(rest) ?? [
      String.fromCodePoint(rest.codePointAt(0) ?? 0),
    ];
    this.#at += all.length;
    const code = short ?? long;
    if (code !== undefined) return String.fromCodePoint(Number.parseInt(code, 16));
    if (!all.startsWith('\\')) return all;
    return { n: '\n', r: '\r', t: '\t' }[all.slice(1)] ?? all.slice(1);
  }

  #blanks(): void {
    while (this.#text[this.#at] === ' ') this.#at += 1;
  }

  #skip(char: string, blanks = true): boolean {
    if (blanks) this.#blanks();
    if (this.#text[this.#at] !== char) return false;
    this.#at += 1;
    return true;
  }
}
