/** Renders a Jinja template that nobody vouches for: in bounded time, to bounded text, the same on every machine. */
import { Environment, Interpreter, Template } from '@huggingface/jinja';
import { strftime } from './strftime.ts';

/** One step is about half a microsecond. Long texts and lists count as many. */
const BASE_STEPS = 1_000_000;
/** Every character of the input may be copied 32 times. */
const STEPS_PER_INPUT_CHAR = 2;
/** Of any text that the template makes: a fixed part, and some times the input. */
const BASE_TEXT_CHARS = 1024 * 1024;
const TEXT_PER_INPUT_CHAR = 4;
const MAX_RANGE = 100_000;
const MAX_TEMPLATE_CHARS = 1024 * 1024;
/** Widths and the like that a filter is given. */
const MAX_FILTER_NUMBER = 10_000;
/** Characters that cost one step to copy. */
const CHARS_PER_STEP = 16;
/** Characters or items that cost one step to look up. */
const LOOKS_PER_STEP = 256;
/** Filters that do not walk through a list. */
const INSTANT_FILTERS: ReadonlySet<string> = new Set(['length', 'count', 'first', 'last']);

/** What is used of the library's interpreter; its own declarations do not resolve. */
interface Value {
  readonly type: string;
  readonly value: unknown;
}

interface Statement {
  readonly type: string;
  readonly value?: unknown;
  readonly iterable?: Statement;
  readonly lhs?: Statement;
  readonly operand?: Statement;
  readonly callee?: Statement;
  readonly filter?: Statement;
  readonly args?: readonly Statement[];
}

interface Scope {
  set(name: string, value: unknown): unknown;
}

interface LibraryInterpreter {
  run(program: unknown): Value;
  evaluate(statement: Statement | undefined, scope: Scope): Value;
}

const BaseInterpreter: new (scope: Scope) => LibraryInterpreter = Interpreter;

/** The template does more than any honest one. */
export class TemplateLimit extends Error {}

export class BoundedTemplate {
  readonly #parsed: Template;

  /** @throws Error when it is no Jinja, or far too long. */
  constructor(text: string) {
    if (text.length > MAX_TEMPLATE_CHARS) throw new TemplateLimit('it is longer than 1 Mi characters');
    this.#parsed = new Template(text);
  }

  /**
   * @param context the template's variables, of plain JSON values.
   * @param now for templates that print the date.
   * @throws TemplateLimit when it does not end within the bounds; Error when it refuses or does not fit the context.
   */
  render(context: Readonly<Record<string, unknown>>, now: () => Date): string {
    const scope: Scope = new Environment();
    for (const [name, value] of Object.entries({ ...globals(now), ...context })) scope.set(name, value);
    const { value } = new BoundedInterpreter(scope, charsIn(context)).run(this.#parsed.parsed);
    return typeof value === 'string' ? value : '';
  }
}

function globals(now: () => Date): Record<string, unknown> {
  return {
    true: true,
    false: false,
    none: null,
    True: true,
    False: false,
    None: null,
    raise_exception: (message: unknown) => {
      throw new Error(String(message));
    },
    range: boundedRange,
    strftime_now: (format: unknown) => strftime(now(), String(format)),
  };
}

function boundedRange(first: unknown, second?: unknown, third?: unknown): number[] {
  const [start, stop, step] =
    typeof second === 'number' ? [Number(first), second, Number(third ?? 1)] : [0, Number(first), 1];
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (!(length <= MAX_RANGE)) throw new TemplateLimit(`it counts to ${length}`);
  return Array.from({ length }, (_, index) => start + index * step);
}

/**
 * The library's interpreter with every evaluation counted. All values pass through `evaluate`, so their sizes count too:
 * a text that doubles itself, or a list of lists of itself, is noticed before anything walks through it.
 */
class BoundedInterpreter extends BaseInterpreter {
  readonly #maxTextChars: number;
  #steps: number;
  /** Expressions whose lists something walks through. */
  readonly #walked = new WeakSet<Statement>();
  readonly #filterArguments = new WeakSet<Statement>();
  /** How large a list or mapping is, with all within. They never change; namespaces do, and are not here. */
  readonly #sizes = new WeakMap<Value, number>();

  constructor(scope: Scope, inputChars: number) {
    super(scope);
    this.#steps = BASE_STEPS + STEPS_PER_INPUT_CHAR * inputChars;
    this.#maxTextChars = BASE_TEXT_CHARS + TEXT_PER_INPUT_CHAR * inputChars;
  }

  override evaluate(statement: Statement | undefined, scope: Scope): Value {
    this.#spend(1);
    if (statement !== undefined) this.#foresee(statement);
    const value = super.evaluate(statement, scope);
    if (statement !== undefined) this.#charge(statement, value);
    return value;
  }

  #foresee({ type, iterable, operand, filter }: Statement): void {
    if (type === 'For' && iterable !== undefined) this.#walked.add(iterable).add(iterable.lhs ?? iterable);
    if (type !== 'FilterExpression' && type !== 'FilterStatement') {
      return;
    }
    const name = filter?.value ?? filter?.callee?.value;
    if (operand !== undefined && !INSTANT_FILTERS.has(String(name))) this.#walked.add(operand);
    for (const one of filter?.args ?? []) this.#filterArguments.add(isStatement(one.value) ? one.value : one);
  }

  #charge(statement: Statement, result: Value): void {
    const { value } = result;
    const looks = statement.type === 'Identifier' || statement.type === 'MemberExpression';
    if (typeof value === 'string') {
      if (value.length > this.#maxTextChars) throw new TemplateLimit(`it writes ${value.length} characters and more`);
      this.#spend(value.length / (looks ? LOOKS_PER_STEP : CHARS_PER_STEP));
    } else if (isContainer(value)) {
      this.#size(result);
      const items = Array.isArray(value) ? value.length : value.size;
      this.#spend(this.#walked.has(statement) ? 2 * items : items / LOOKS_PER_STEP);
    } else if (typeof value === 'number' && value > MAX_FILTER_NUMBER && this.#filterArguments.has(statement)) {
      throw new TemplateLimit(`it asks for a width of ${value}`);
    }
  }

  #spend(steps: number): void {
    this.#steps -= steps;
    if (this.#steps < 0) throw new TemplateLimit('it does not come to an end');
  }

  /** Throws when nesting multiplies the value beyond all measure. */
  #size(value: Value): number {
    if (typeof value.value === 'string') return 1 + value.value.length / LOOKS_PER_STEP;
    if (!isContainer(value.value)) return 1;
    const known = this.#sizes.get(value);
    if (known !== undefined) return known;
    let size = 1;
    for (const child of value.value.values()) {
      this.#spend(1 / CHARS_PER_STEP);
      size += this.#size(child);
    }
    if (size > this.#steps) throw new TemplateLimit('it makes lists without end');
    if (value.type !== 'NamespaceValue') this.#sizes.set(value, size);
    return size;
  }
}

function isStatement(value: unknown): value is Statement {
  return typeof value === 'object' && value !== null;
}

function isContainer(value: unknown): value is Value[] | Map<string, Value> {
  return Array.isArray(value) || value instanceof Map;
}

/** Rough, and the same wherever it is counted. */
function charsIn(value: unknown): number {
  if (typeof value === 'string') return value.length;
  if (typeof value !== 'object' || value === null) return 1;
  let chars = 0;
  for (const [key, child] of Object.entries(value)) chars += key.length + charsIn(child);
  return chars;
}
