/**
 * Every field of every body, asked where the model is and one hop away, whole and streamed. The cells are made from the
 * lists of cases; how many there are is printed, and none is left out without its reason.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { EmbeddingFields } from '../../protocols/inference/bodies/embedding-body.ts';
import { ChatBody, CompletionBody } from '../../protocols/inference/bodies/openai-body.ts';
import { RerankFields } from '../../protocols/inference/bodies/rerank-body.ts';
import { DetokenizeFields, TokenizeFields } from '../../protocols/inference/bodies/tokenize-body.ts';
import { type Answer, ask, type Choice, type Route, STREAMED } from '../support/matrix-answer.ts';
import { schemaFields } from '../support/matrix-fields.ts';
import { DEMO, type MatrixNodes, PLACES, type Place, startMatrixNodes } from '../support/matrix-nodes.ts';
import { CHAT_CASES } from './chat-cases.ts';
import { COMPLETION_CASES } from './completion-cases.ts';
import { type Facts, type Fields, type MatrixCase, of } from './matrix-case.ts';
import { matrixFacts } from './matrix-facts.ts';
import { RESULT_CASES } from './result-cases.ts';
import { sharedCases } from './shared-cases.ts';
import { TOOL_AND_FORMAT_CASES } from './tool-cases.ts';

const CASES: readonly MatrixCase[] = [
  ...sharedCases('chat'),
  ...CHAT_CASES,
  ...TOOL_AND_FORMAT_CASES,
  ...sharedCases('completion'),
  ...COMPLETION_CASES,
  ...RESULT_CASES,
];

const SCHEMAS: Readonly<Record<Route, object>> = {
  chat: ChatBody,
  completion: CompletionBody,
  embedding: EmbeddingFields,
  rerank: RerankFields,
  tokenize: TokenizeFields,
  detokenize: DetokenizeFields,
};

/** Two probabilities of one token, computed in batches of other sizes, are this near. */
const LOGPROB_TOLERANCE = 0.02;

interface Cell {
  readonly place: Place;
  readonly stream: boolean;
}

const CELLS: readonly Cell[] = PLACES.flatMap((place) => [false, true].map((stream) => ({ place, stream })));
const nameOf = ({ place, stream }: Cell): string => `${place}, ${stream ? 'streamed' : 'whole'}`;

const counts = { cells: 0, passed: 0, notApplicable: 0 };
const reasons = new Map<string, number>();
const answered = new Map<string, Promise<Answer>>();
let nodes: MatrixNodes;
let facts: Facts;

before(async () => {
  nodes = await startMatrixNodes();
  facts = await matrixFacts(nodes.urls.local);
});
after(() => nodes?.stop());

function asked({ place, stream }: Cell, route: Route, fields: Fields): Promise<Answer> {
  const streaming = STREAMED.has(route) && stream;
  const body = {
    model: DEMO,
    ...(streaming ? { stream: true, stream_options: { include_usage: true } } : {}),
    ...fields,
  };
  return ask(nodes.urls[place], route, body);
}

/** Asked once for each cell, however many cases are measured by it. */
function plainAnswer(cell: Cell, route: Route, fields: Fields): Promise<Answer> {
  const key = JSON.stringify([cell, route, fields]);
  const known = answered.get(key) ?? asked(cell, route, fields);
  answered.set(key, known);
  return known;
}

async function runCell(cell: Cell, { route, body, against, refuses, holds }: MatrixCase): Promise<Answer> {
  const answer = await asked(cell, route, of(body, facts));
  const param = typeof refuses === 'function' ? refuses({ ...cell, facts }) : (refuses ?? null);
  if (param !== null) {
    assert.deepEqual(
      [answer.status, answer.error?.code, answer.error?.param],
      [400, 'invalid_request', param],
      answer.error?.message,
    );
    assert.ok(!/undefined|\[object/.test(answer.error?.message ?? ''), answer.error?.message);
    return answer;
  }
  assert.equal(answer.status, 200, answer.error?.message);
  assert.equal(answer.headers.get('x-meshnode-node'), nodes.serving);
  assert.equal(answer.headers.get('x-meshnode-attempts'), '1');
  const plain = against === undefined ? answer : await plainAnswer(cell, route, of(against, facts));
  assert.equal(plain.status, 200, plain.error?.message);
  holds?.(answer, { stream: cell.stream, facts, plain });
  return answer;
}

/** What every cell of a row must agree about. Ids are the request's own. */
function comparable({ choices, usage, result }: Answer): object {
  return {
    choices: choices.map(({ text, reasoning, calls, finishes }) => ({
      text,
      reasoning,
      finishes,
      calls: calls.map(({ name, arguments: given }) => ({ name, given })),
    })),
    usage: usage === null ? null : [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens],
    tokens: result.tokens,
    indexes: result.results?.map(({ index }) => index),
    vectors: result.data?.length,
  };
}

function assertEqualAnswers(answer: Answer, first: Answer): void {
  if (answer.status !== 200 || first.status !== 200) {
    assert.deepEqual([answer.error, answer.status], [first.error, first.status]);
    return;
  }
  const withUsage = answer.usage !== null && first.usage !== null;
  const [some, other] = [comparable(answer), comparable(first)];
  assert.deepEqual(withUsage ? some : { ...some, usage: null }, withUsage ? other : { ...other, usage: null });
  answer.choices.forEach((choice, index) => {
    assertNear(choice.logprobs, first.choices[index]?.logprobs);
  });
}

function assertNear(some: unknown, other: unknown): void {
  if (typeof some === 'number' && typeof other === 'number') {
    assert.ok(Math.abs(some - other) <= LOGPROB_TOLERANCE, `${some} is not ${other}`);
  } else if (typeof some === 'object' && typeof other === 'object' && some !== null && other !== null) {
    assert.deepEqual(Object.keys(some).length, Object.keys(other).length);
    for (const [key, value] of Object.entries(some)) {
      // The least likely of several that are told may be another one.
      if (key in other || Array.isArray(some)) assertNear(value, (other as Choice['logprobs'])[key]);
    }
  } else if (typeof some !== 'string' || !/[^\p{ASCII}]/u.test(some)) assert.deepEqual(some, other);
}

/** What else is in a batch changes the last digits: next to nothing where the likeliest is taken, and not where dice are. */
function isSampled({ body, against }: MatrixCase): boolean {
  return [body, against ?? {}].some((given) => Number(of(given, facts)['temperature'] ?? 0) > 0);
}

type Run = (cell: Cell) => Promise<Answer>;

const atOnce = (cells: readonly Cell[], run: Run): Promise<PromiseSettledResult<Answer>[]> =>
  Promise.allSettled(cells.map(run));

async function inTurn(cells: readonly Cell[], run: Run): Promise<PromiseSettledResult<Answer>[]> {
  const settled: PromiseSettledResult<Answer>[] = [];
  for (const cell of cells) settled.push(...(await atOnce([cell], run)));
  return settled;
}

async function runCase(one: MatrixCase): Promise<void> {
  const applicable = CELLS.filter(({ stream }) => !stream || STREAMED.has(one.route));
  const left = CELLS.length - applicable.length;
  counts.cells += CELLS.length;
  if (left > 0) {
    counts.notApplicable += left;
    reasons.set(one.route, (reasons.get(one.route) ?? 0) + left);
  }
  const settled = await (isSampled(one) ? inTurn : atOnce)(applicable, (cell) => runCell(cell, one));
  const failures: Error[] = [];
  const first = new Map<boolean | null, Answer>();
  settled.forEach((outcome, index) => {
    const cell = applicable[index];
    if (cell === undefined) return;
    try {
      if (outcome.status === 'rejected') throw outcome.reason;
      // Where a stream is refused and a whole answer given, or the other way round, each is compared with its like.
      const kind = typeof one.refuses === 'function' ? cell.stream : null;
      const known = first.get(kind) ?? outcome.value;
      first.set(kind, known);
      assertEqualAnswers(outcome.value, known);
      counts.passed += 1;
    } catch (error) {
      failures.push(new Error(`${nameOf(cell)}: ${error instanceof Error ? error.message : String(error)}`));
    }
  });
  if (failures.length > 0) throw new AggregateError(failures, failures.map(({ message }) => message).join('\n'));
}

for (const route of Object.keys(SCHEMAS) as Route[]) {
  describe(`the matrix of ${route}`, () => {
    for (const one of CASES.filter((candidate) => candidate.route === route)) {
      it(`${one.fields.join(', ')} ${one.says}`, () => runCase(one));
    }
  });
}

describe('the matrix of models', () => {
  const rows: readonly (readonly [path: string, status: number])[] = [
    ['/v1/models', 200],
    [`/v1/models/${DEMO}`, 200],
    ['/v1/models/nobody-has-it', 404],
  ];
  for (const [path, status] of rows) {
    it(`GET ${path} says ${status}`, async () => {
      counts.cells += CELLS.length;
      counts.notApplicable += PLACES.length;
      reasons.set('models', (reasons.get('models') ?? 0) + PLACES.length);
      for (const place of PLACES) {
        const response = await fetch(nodes.urls[place] + path);
        assert.equal(response.status, status);
        const text = await response.text();
        if (status === 200) assert.ok(text.includes(`"id":"${DEMO}"`));
        counts.passed += 1;
      }
    });
  }
});

describe('the matrix', () => {
  for (const [route, schema] of Object.entries(SCHEMAS)) {
    it(`has a cell for every field of ${route}`, () => {
      const proved = new Set(CASES.filter((one) => one.route === route).flatMap(({ fields }) => fields));
      const fields = schemaFields(schema);
      assert.ok(fields.length > 0);
      assert.deepEqual(
        fields.filter((field) => !proved.has(field)),
        [],
      );
      assert.deepEqual(
        [...proved].filter((field) => !fields.includes(field) && field !== 'timings'),
        [],
        'and cells for fields that there are',
      );
    });
  }

  it('leaves out no cell without a reason', (context) => {
    const { cells, passed, notApplicable } = counts;
    const skipped = CASES.length * CELLS.length + 3 * CELLS.length - cells;
    context.diagnostic(`matrix: ${cells} cells, ${passed} passed, ${notApplicable} not applicable, ${skipped} skipped`);
    for (const [route, count] of reasons) {
      context.diagnostic(`not applicable: ${count} cells of ${route}, whose answer is one result and has no stream`);
    }
    assert.equal(skipped, 0);
    assert.equal(passed + notApplicable, cells);
  });
});
