/** One row of the matrix: a request, which fields it proves, and what must hold of its answer wherever it is asked. */
import assert from 'node:assert/strict';
import type { Answer, Choice, Route } from '../support/matrix-answer.ts';

export type Fields = Readonly<Record<string, unknown>>;

/** What the cases need to know of the model: they must hold for any. */
export interface Facts {
  /** The greedy answer to `CHAT` and to `COMPLETION`, whole. */
  readonly greedy: Readonly<Record<'chat' | 'completion', string>>;
  /** Token id of the first thing that each of them says. */
  readonly first: Readonly<Record<'chat' | 'completion', number>>;
  /** Token id that ends a turn. */
  readonly endOfTurn: number;
  /** Token ids of `COMPLETION.prompt`. */
  readonly promptTokens: readonly number[];
  /** Has the model been made to fill in between? */
  readonly fillsIn: boolean;
}

export interface Asked {
  readonly stream: boolean;
  readonly facts: Facts;
  /** The answer to `against`, asked at the same place and in the same way. */
  readonly plain: Answer;
}

type Given = Fields | ((facts: Facts) => Fields);

export interface MatrixCase {
  readonly route: Route;
  /** Paths in the schema of the route's body, for example `messages[].role=user`. */
  readonly fields: readonly string[];
  /** Present tense. */
  readonly says: string;
  /** All but `stream`, and `stream_options` where they are not the point; `model` [the demo model]. */
  readonly body: Given;
  readonly against?: Given;
  /** The field that a 400 must name; of streams only or of whole answers only, where one of them is answered. */
  readonly refuses?: string | ((cell: { readonly stream: boolean; readonly facts: Facts }) => string | null);
  readonly holds?: (answer: Answer, asked: Asked) => void;
}

/** Makes the rows of one route: for one field or several, what holds, and the rest of the row. */
export const rowsOf =
  (route: Route) =>
  (
    fields: string | readonly string[],
    says: string,
    rest: Omit<MatrixCase, 'route' | 'fields' | 'says'>,
  ): MatrixCase => ({ route, fields: [fields].flat(), says, ...rest });

export const of = (given: Given, facts: Facts): Fields => (typeof given === 'function' ? given(facts) : given);

export const user = (content: unknown): Fields => ({ role: 'user', content });

/** Greedy, short and about nothing that only one model knows. */
export const CHAT = { messages: [user('Count to 9.')], temperature: 0, max_tokens: 12 } as const;
export const COMPLETION = { prompt: 'Once upon a time', temperature: 0, max_tokens: 12 } as const;

/** The only choice. */
export function only({ choices }: Answer): Choice {
  const [choice] = choices;
  assert.ok(choice !== undefined && choices.length === 1, `${choices.length} choices`);
  return choice;
}

export const texts = ({ choices }: Answer): string[] => choices.map(({ text }) => text);

export function sameText(answer: Answer, { plain }: Asked): void {
  assert.deepEqual(texts(answer), texts(plain));
  assert.notDeepEqual(texts(answer), ['']);
}

export function otherText(answer: Answer, { plain }: Asked): void {
  assert.notDeepEqual(texts(answer), texts(plain));
}

const promptTokens = ({ usage }: Answer): number => usage?.prompt_tokens ?? 0;

export function samePrompt(answer: Answer, { plain }: Asked): void {
  assert.equal(promptTokens(answer), promptTokens(plain));
}

/** What was added is in the prompt. */
export function longerPrompt(answer: Answer, { plain }: Asked): void {
  assert.ok(promptTokens(answer) > promptTokens(plain), `${promptTokens(answer)} after ${promptTokens(plain)}`);
}

/** Ended because so many tokens were allowed. */
export const tokensAre =
  (count: number) =>
  (answer: Answer): void => {
    assert.equal(answer.usage?.completion_tokens, count);
    assert.deepEqual(only(answer).finishes, ['length']);
  };

/** A case for each, all of them refused with a 400 that names the field. */
export function refusals(
  route: Route,
  plain: Fields,
  rows: readonly (readonly [param: string, fields: Fields, of?: string])[],
): MatrixCase[] {
  return rows.map(([refuses, fields, field = refuses.replace(/\[\d+\]/g, '[]')]) => ({
    route,
    fields: [field],
    says: `refuses ${JSON.stringify(fields).slice(0, 90)}`,
    body: { ...plain, ...fields },
    refuses,
  }));
}
