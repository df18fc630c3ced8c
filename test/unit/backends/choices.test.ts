import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { Answer } from '../../../node/backends/llama-cpp/answer.ts';
import { answerChoices, type ChoiceFacts } from '../../../node/backends/llama-cpp/choices.ts';
import type { LaneOrder } from '../../../node/backends/llama-cpp/ipc.ts';
import { laneOrders } from '../../../node/backends/llama-cpp/lane-orders.ts';
import type { GenerationRequest } from '../../../node/backends/llama-cpp/request/generation-request.ts';
import { MeshError } from '../../../node/common/errors.ts';
import type { InferenceEvent, ResumedChoice } from '../../../protocols/inference/events.ts';
import { GREEDY } from '../../support/lane-order.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const FACTS: ChoiceFacts = { fingerprint: 'me', artifact: 'a'.repeat(64) };
const digestOf = (text: string): string => createHash('sha256').update(text).digest('hex');

const request = (prompts: readonly string[], fields: Partial<GenerationRequest> = {}): GenerationRequest => ({
  prompts: prompts.map((text) => ({ kind: 'text', text })),
  choices: 1,
  maxTokens: 4,
  stop: [],
  sampling: { ...GREEDY, temperature: 1 },
  constraint: { type: 'none' },
  parseTools: false,
  parallelTools: true,
  logprobs: null,
  echo: false,
  requestId: 'r',
  resume: null,
  ...fields,
});

const resumed = (tokens: number[], isWhole = false): ResumedChoice => ({
  tokens,
  finish: isWhole ? 'stop' : null,
  text: '',
});

/** Takes orders; the test says what becomes of them. */
class HandEngine {
  readonly taken: { readonly order: LaneOrder; readonly answer: Answer }[] = [];
  readonly cancelled: string[] = [];
  room = Number.POSITIVE_INFINITY;
  readonly #arrivals: (() => void)[] = [];

  submit(order: LaneOrder): Answer {
    if (this.taken.filter(({ answer }) => !answer.over).length >= this.room) {
      throw new MeshError('overloaded', 'full');
    }
    const progress = { type: 'progress', state: 'queued', fraction: null } as const;
    const answer = new Answer({ clock: new ManualClock(), progress: () => progress }, order);
    this.taken.push({ order, answer });
    for (const arrived of this.#arrivals.splice(0)) arrived();
    return answer;
  }

  cancel(answer: Answer, error: MeshError): void {
    this.cancelled.push(error.code);
    answer.fail(error);
  }

  async until(count: number): Promise<void> {
    while (this.taken.length < count) await new Promise<void>((resolve) => this.#arrivals.push(resolve));
  }

  accept(index: number): void {
    const { order, answer } = this.#at(index);
    const text = order.prompt.kind === 'text' ? order.prompt.text : '';
    answer.accept({ promptTokens: text.length, promptDigest: digestOf(text) });
  }

  step(index: number, token: number): void {
    this.#at(index).answer.step({ id: index, tokens: [token], text: String(token) });
  }

  end(index: number): void {
    const { order, answer } = this.#at(index);
    answer.step({
      id: index,
      tokens: [],
      text: '',
      end: {
        finish: 'stop',
        promptTokens: 1,
        completionTokens: order.finished ? 0 : 1,
        reasoningTokens: 0,
        cachedTokens: 10 + order.choice,
        timings: { promptMs: index, predictedMs: 10 * index },
      },
    });
  }

  /** All that an order gives, at once. */
  run(index: number): void {
    this.accept(index);
    if (!this.#at(index).order.finished) this.step(index, 100 + index);
    this.end(index);
  }

  #at(index: number) {
    const taken = this.taken[index];
    assert.ok(taken !== undefined, `order ${index} was submitted`);
    return taken;
  }
}

function collect(
  engine: HandEngine,
  asked: GenerationRequest,
  { facts = FACTS, signal = new AbortController().signal }: { facts?: ChoiceFacts; signal?: AbortSignal } = {},
): { readonly events: InferenceEvent[]; readonly done: Promise<void> } {
  const events: InferenceEvent[] = [];
  const done = (async () => {
    for await (const event of answerChoices(engine, asked, facts, { signal })) events.push(event);
  })();
  return { events, done };
}

const failsWith = (code: string) => (error: unknown) => error instanceof MeshError && error.code === code;
const types = (events: readonly InferenceEvent[]): string[] => events.map(({ type }) => type);

test('every choice is an order of its own, with its own seed, number and call ids', () => {
  const orders = laneOrders(request(['a', 'b'], { choices: 2 }));
  assert.deepEqual(
    orders.map(({ choice, prompt, callIdSeed }) => [choice, prompt.kind === 'text' && prompt.text, callIdSeed]),
    [
      [0, 'a', 'r:0'],
      [1, 'a', 'r:1'],
      [2, 'b', 'r:2'],
      [3, 'b', 'r:3'],
    ],
  );
  const [first, second, third, fourth] = orders.map(({ sampling }) => sampling.seed);
  assert.equal(first, 1, "the first answer to a prompt has the request's seed");
  assert.notEqual(first, second);
  assert.deepEqual([third, fourth], [first, second]);
});

test('one choice passes through: accepted, chunks, the end', async () => {
  const engine = new HandEngine();
  const { events, done } = collect(engine, request(['hello']));
  await engine.until(1);
  engine.run(0);
  await done;
  assert.deepEqual(events, [
    { type: 'accepted', node: 'me', promptTokens: 5, promptDigest: digestOf('hello'), artifact: FACTS.artifact },
    { type: 'chunk', choice: 0, index: 0, tokens: [100], text: '100', finish: 'stop' },
    {
      type: 'end',
      finishReasons: ['stop'],
      usage: { promptTokens: 5, completionTokens: 1, cachedTokens: 10 },
      timings: { promptMs: 0, predictedMs: 0 },
    },
  ]);
});

test('several prompts with several choices are accepted as one, and each prompt counts once', async () => {
  const engine = new HandEngine();
  const { events, done } = collect(engine, request(['one', 'three'], { choices: 2 }));
  await engine.until(4);
  engine.run(3);
  engine.run(1);
  engine.run(0);
  engine.run(2);
  await done;
  assert.equal(types(events)[0], 'accepted');
  const [accepted] = events;
  assert.ok(accepted?.type === 'accepted');
  assert.equal(accepted.promptTokens, 8);
  assert.equal(accepted.promptDigest, digestOf(digestOf('one') + digestOf('three')));
  const end = events.at(-1);
  assert.ok(end?.type === 'end');
  assert.deepEqual(end.finishReasons, ['stop', 'stop', 'stop', 'stop']);
  assert.deepEqual(end.usage, { promptTokens: 8, completionTokens: 4, cachedTokens: 10 + 12 });
  assert.deepEqual(end.timings, { promptMs: 3, predictedMs: 30 });
});

test('nothing is said before every prompt was accepted, and nothing said before is lost', async () => {
  const engine = new HandEngine();
  const { events, done } = collect(engine, request(['one', 'two']));
  await engine.until(2);
  engine.run(0);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(events, []);
  engine.run(1);
  await done;
  assert.deepEqual(types(events), ['accepted', 'chunk', 'chunk', 'end']);
});

test('choices beyond what runs at once follow as others end', async () => {
  const engine = new HandEngine();
  const { events, done } = collect(engine, request(['x'], { choices: 5 }), { facts: { ...FACTS, atOnce: 2 } });
  for (let index = 0; index < 5; index += 1) {
    await engine.until(Math.min(5, index + 2));
    assert.ok(engine.taken.filter(({ answer }) => !answer.over).length <= 2);
    engine.run(index);
  }
  await done;
  assert.deepEqual(
    engine.taken.map(({ order }) => order.choice),
    [0, 1, 2, 3, 4],
  );
  assert.equal(types(events).filter((type) => type === 'chunk').length, 5);
});

test('prompts whose turn is late are rendered first, so that the answer is accepted and the first can speak', async () => {
  const engine = new HandEngine();
  const facts = { ...FACTS, atOnce: 1 };
  const { events, done } = collect(engine, request(['a', 'bb', 'ccc']), { facts });
  for (let index = 0; index < 5; index += 1) {
    await engine.until(index + 1);
    engine.run(index);
  }
  await done;
  assert.deepEqual(
    engine.taken.map(({ order }) => [order.choice, order.finished]),
    [
      [1, true],
      [2, true],
      [0, false],
      [1, false],
      [2, false],
    ],
  );
  assert.deepEqual(types(events), ['accepted', 'chunk', 'chunk', 'chunk', 'end']);
  const end = events.at(-1);
  assert.ok(end?.type === 'end');
  assert.deepEqual(end.usage, { promptTokens: 6, completionTokens: 3, cachedTokens: 10 + 11 + 12 });
});

test('a full queue makes later choices wait for those of their own request', async () => {
  const engine = new HandEngine();
  engine.room = 1;
  const { events, done } = collect(engine, request(['x'], { choices: 3 }));
  for (let index = 0; index < 3; index += 1) {
    await engine.until(index + 1);
    engine.run(index);
  }
  await done;
  assert.equal(types(events).at(-1), 'end');
  engine.room = 0;
  await assert.rejects(collect(engine, request(['x'])).done, failsWith('overloaded'));
});

test('a choice that fails ends all, after what it had given', async () => {
  const engine = new HandEngine();
  const { events, done } = collect(engine, request(['x'], { choices: 3 }));
  await engine.until(3);
  for (const index of [0, 1, 2]) engine.accept(index);
  engine.step(1, 7);
  engine.taken[1]?.answer.fail(new MeshError('engine_failed', 'gone'));
  await assert.rejects(done, failsWith('engine_failed'));
  assert.deepEqual(types(events), ['accepted', 'chunk']);
  assert.ok(engine.taken.every(({ answer }) => answer.over));
});

test('a reader who leaves and a signal that aborts cancel every choice', async () => {
  const engine = new HandEngine();
  const answer = answerChoices(engine, request(['x'], { choices: 2 }), FACTS, { signal: new AbortController().signal });
  const first = answer.next();
  await engine.until(2);
  engine.accept(0);
  assert.equal((await first).value?.type, 'accepted');
  await answer.return(undefined);
  assert.ok(engine.taken.every((taken) => taken.answer.over));

  const aborting = new AbortController();
  const { done } = collect(engine, request(['x'], { choices: 2 }), { signal: aborting.signal });
  await engine.until(4);
  aborting.abort();
  await assert.rejects(done, failsWith('client_closed'));
  assert.ok(engine.taken.every((taken) => taken.answer.over));
  await assert.rejects(collect(engine, request(['x']), { signal: aborting.signal }).done, failsWith('client_closed'));
  assert.equal(engine.taken.length, 4, 'nothing is begun for who is gone');
});

test('resumed choices begin where they were, and those that were whole only count', async () => {
  const engine = new HandEngine();
  const resume = {
    artifact: 'a'.repeat(64),
    promptDigest: digestOf('x'),
    choices: [resumed([1, 2, 3]), resumed([4, 5], true)],
  };
  const { events, done } = collect(engine, request(['x'], { choices: 2, resume }));
  await engine.until(2);
  engine.run(0);
  engine.run(1);
  await done;
  const chunks = events.filter((event) => event.type === 'chunk');
  assert.deepEqual(
    chunks.map(({ choice, index, tokens }) => [choice, index, tokens]),
    [[0, 3, [100]]],
  );
  const end = events.at(-1);
  assert.ok(end?.type === 'end');
  assert.equal(end.usage.completionTokens, 3 + 1 + 2);
  assert.deepEqual(end.finishReasons, ['stop', 'stop']);
});

test('what was begun with another file or prompt is refused before anything is said', async () => {
  const resume = { artifact: 'a'.repeat(64), promptDigest: digestOf('x'), choices: [resumed([1])] };
  const strange: readonly GenerationRequest[] = [
    request(['x'], { resume: { ...resume, artifact: 'b'.repeat(64) } }),
    request(['x'], { resume: { ...resume, choices: [] } }),
  ];
  for (const asked of strange) {
    const engine = new HandEngine();
    await assert.rejects(collect(engine, asked).done, failsWith('cannot_resume'));
    assert.equal(engine.taken.length, 0);
  }
  const engine = new HandEngine();
  const { events, done } = collect(engine, request(['y'], { resume }));
  await engine.until(1);
  engine.accept(0);
  engine.step(0, 1);
  await assert.rejects(done, failsWith('cannot_resume'));
  assert.deepEqual(events, []);
  assert.ok(engine.taken[0]?.answer.over);
});

test('steps that nobody reads become one chunk with all that they released', async () => {
  const engine = new HandEngine();
  const answer = engine.submit(laneOrders(request(['x']))[0] as LaneOrder);
  const logprob = (token: string) => ({ token, bytes: [], logprob: -1, top: [] });
  answer.accept({ promptTokens: 1, promptDigest: '' });
  answer.step({ id: 1, tokens: [1], text: 'a', logprobs: [logprob('a')], promptLogprobs: [null] });
  answer.step({ id: 1, tokens: [2], text: '', reasoning: 'r', logprobs: [logprob('b')] });
  answer.step({
    id: 1,
    tokens: [3],
    text: 'c',
    reasoning: 's',
    toolCalls: [{ index: 0, arguments: '{' }],
    logprobs: [],
  });
  const events = answer.events();
  await events.next();
  assert.deepEqual((await events.next()).value, {
    type: 'chunk',
    choice: 0,
    index: 0,
    tokens: [1, 2, 3],
    text: 'ac',
    reasoning: 'rs',
    toolCalls: [{ index: 0, arguments: '{' }],
    logprobs: [logprob('a'), logprob('b')],
    promptLogprobs: [null],
  });
  answer.step({ id: 1, tokens: [4], text: 'd' });
  assert.deepEqual((await events.next()).value, { type: 'chunk', choice: 0, index: 3, tokens: [4], text: 'd' });
});
