import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EngineHost } from '../../../node/backends/llama-cpp/child/engine-host.ts';
import type { NativeModel } from '../../../node/backends/llama-cpp/child/native-model.ts';
import type { NativeSequence } from '../../../node/backends/llama-cpp/child/native-sequence.ts';
import type { FromChild, LaneOrder, StepOutput } from '../../../node/backends/llama-cpp/ipc.ts';
import { ChatTemplate } from '../../../node/backends/llama-cpp/prompt/chat-template.ts';
import { MeshError } from '../../../node/common/errors.ts';
import { laneOrder } from '../../support/lane-order.ts';

const END = 0;

/** A model whose tokens are characters and whose answer to any prompt is `abcabc…`; notes every evaluation. */
class LetterModel {
  readonly evaluated: string[] = [];
  /** What each sequence holds. */
  readonly held: number[][] = [];
  /** Whether each sampled token was bound by a grammar. */
  readonly bound: boolean[] = [];
  /** Called before each sampled token. */
  beforeToken: (sequence: number) => void = () => {};
  /** How many tokens its answers have. */
  ends = Number.POSITIVE_INFINITY;
  /** Most tokens that a sequence can be cut down to. */
  mostKept = Number.POSITIVE_INFINITY;

  native(sequences: number, contextTokens = 100): NativeModel {
    const refuse = (): Promise<never> => Promise.reject(new MeshError('invalid_request', 'no such thing'));
    return {
      contextTokens,
      vocabulary: {
        size: 0x110000,
        tokenizer: {
          leadingToken: null,
          tokenize: (text) => [...text].map((character) => character.codePointAt(0) ?? 0),
        },
        detokenize: (tokens) => String.fromCodePoint(...tokens),
        endsAnswer: (token) => token === END,
        piece: (token) => ({ token: String.fromCodePoint(token), bytes: [] }),
        controlTokens: new Map(),
        fill: null,
      },
      template: new ChatTemplate({ template: null, bosToken: '', eosToken: '', controlTokens: [] }),
      usesGpu: false,
      generates: true,
      sequences: Array.from({ length: sequences }, (_, id) => this.#sequence(id)),
      tasks: { embedder: refuse, ranker: refuse, contextTokens, vocabularyTokens: 0, textOf: () => '' },
      grammar: refuse,
    };
  }

  #sequence(id: number): NativeSequence {
    const held: number[] = [];
    this.held[id] = held;
    return {
      id,
      get tokens() {
        return held;
      },
      keep: async (count) => {
        held.length = Math.min(count, held.length, this.mostKept);
        return held.length;
      },
      prefill: async (tokens) => {
        this.evaluated.push(`${id}+${tokens.length}`);
        held.push(...tokens);
      },
      score: async (tokens, followers) => {
        this.evaluated.push(`${id}?${tokens.length}`);
        held.push(...tokens);
        return followers.map((token) => ({ token: String.fromCodePoint(token), bytes: [], logprob: -1, top: [] }));
      },
      next: async (tokens, { generated, grammar }) => {
        this.bound.push(grammar !== null);
        this.evaluated.push(`${id}+${tokens.length}!`);
        this.beforeToken(id);
        held.push(...tokens);
        const token = generated.length === this.ends ? END : ('abc'.codePointAt(generated.length % 3) ?? 0);
        return { token, logprob: null };
      },
    };
  }
}

/** A loaded host, what it sent, and a wait for something it sends. */
async function loadedHost(native: NativeModel) {
  const sent: FromChild[] = [];
  let wake = (): void => {};
  const host = new EngineHost({
    load: async () => native,
    now: () => 0,
    send: (message) => {
      sent.push(message);
      wake();
    },
  });
  await host.receive({
    type: 'load',
    modelPath: '',
    gpu: 'off',
    contextTokens: null,
    parallel: native.sequences.length,
  });
  const until = async (reached: () => boolean): Promise<void> => {
    while (!reached()) await new Promise<void>((resolve) => (wake = resolve));
  };
  const outputs = (id: number): StepOutput[] =>
    sent.flatMap((message) => (message.type === 'step' ? message.outputs.filter((output) => output.id === id) : []));
  const ended = (id: number) => outputs(id).some((output) => output.end !== undefined);
  return { host, sent, until, outputs, ended };
}

test('two requests share each step, and one message carries what the step gave both', async () => {
  const { host, sent, until, outputs, ended } = await loadedHost(new LetterModel().native(4));
  await Promise.all([1, 2].map((id) => host.receive({ type: 'generate', id, order: laneOrder('hi') })));
  await until(() => ended(1) && ended(2));
  const steps = sent.filter((message) => message.type === 'step');
  assert.deepEqual(
    steps.map((message) => message.outputs.map(({ id }) => id)),
    [
      [1, 2],
      [1, 2],
      [1, 2],
      [1, 2],
    ],
  );
  assert.equal(
    outputs(1)
      .map(({ text }) => text)
      .join(''),
    'abca',
  );
  assert.deepEqual(outputs(1).at(-1)?.end?.finish, 'length');
});

test('a cancelled generation takes no further token, and its slot, the lowest, is handed out next', {
  timeout: 10_000,
}, async () => {
  const model = new LetterModel();
  const { host, sent, until, outputs } = await loadedHost(model.native(2, 10_000));
  await host.receive({ type: 'generate', id: 1, order: laneOrder('hi', { maxTokens: 9_000 }) });
  await host.receive({ type: 'generate', id: 2, order: laneOrder('hi', { maxTokens: 9_000 }) });
  await until(() => outputs(1).length >= 5);
  const before = model.evaluated.filter((entry) => entry.startsWith('0+')).length;
  await host.receive({ type: 'cancel', id: 1 });
  await until(() => sent.some((message) => message.type === 'released'));
  const after = model.evaluated.filter((entry) => entry.startsWith('0+')).length;
  assert.ok(after - before <= 1, `${after - before} more tokens`);
  const shown = outputs(1).reduce((sum, { tokens }) => sum + tokens.length, 0);
  const released = sent.find((message) => message.type === 'released');
  assert.ok(released !== undefined && released.completionTokens - shown <= 1);
  await host.receive({ type: 'generate', id: 3, order: laneOrder('hi') });
  await until(() => outputs(3).length > 0);
  assert.ok(model.evaluated.filter((entry) => entry.startsWith('0+')).length > after);
  await host.receive({ type: 'cancel', id: 2 });
  await until(() => sent.filter((message) => message.type === 'released').length === 2);
});

test('a cancel that overtakes the start is obeyed', async () => {
  const { host, sent } = await loadedHost(new LetterModel().native(1));
  const starting = host.receive({ type: 'generate', id: 1, order: laneOrder('hi') });
  await host.receive({ type: 'cancel', id: 1 });
  await starting;
  assert.deepEqual(sent.at(-1), { type: 'released', id: 1, completionTokens: 0 });
});

test('a long prompt is evaluated in slices of 64 tokens, its last 128 at once', async () => {
  const model = new LetterModel();
  const { host, until, ended } = await loadedHost(model.native(1, 1_000));
  await host.receive({ type: 'generate', id: 1, order: laneOrder('x'.repeat(300), { maxTokens: 1 }) });
  await until(() => ended(1));
  assert.deepEqual(model.evaluated, ['0+64', '0+64', '0+64', '0+108!']);
});

test('an answer longer than the room is clamped to it', async () => {
  const { host, until, outputs, ended } = await loadedHost(new LetterModel().native(1, 20));
  await host.receive({ type: 'generate', id: 1, order: laneOrder('x'.repeat(15), { maxTokens: 100 }) });
  await until(() => ended(1));
  assert.deepEqual(outputs(1).at(-1)?.end?.completionTokens, 5);
  assert.equal(outputs(1).at(-1)?.end?.finish, 'length');
});

test('a decode that fails refuses its request and frees the slot', async () => {
  const model = new LetterModel();
  const { host, sent, until, ended } = await loadedHost(model.native(1));
  model.beforeToken = () => {
    throw new Error('decode failed');
  };
  await host.receive({ type: 'generate', id: 1, order: laneOrder('hi') });
  await until(() => sent.some((message) => message.type === 'refused'));
  assert.deepEqual(sent.at(-1), { type: 'refused', id: 1, code: 'engine_failed', message: 'decode failed' });
  model.beforeToken = () => {};
  await host.receive({ type: 'generate', id: 2, order: laneOrder('hi') });
  await until(() => ended(2));
});

test('a prompt without room is refused with its code, before any evaluation', async () => {
  const model = new LetterModel();
  const { host, sent } = await loadedHost(model.native(1, 10));
  await host.receive({ type: 'generate', id: 1, order: laneOrder('x'.repeat(10)) });
  const refused = sent.at(-1);
  assert.ok(refused?.type === 'refused' && refused.code === 'context_length_exceeded' && refused.param === 'prompt');
  assert.deepEqual(model.evaluated, []);
});

test('a model that cannot be loaded is the only failure that ends the child', async () => {
  const host = new EngineHost({
    load: () => Promise.reject(new MeshError('out_of_memory', 'too large')),
    now: () => 0,
    send: () => {},
  });
  await host.receive({ type: 'generate', id: 1, order: laneOrder('hi') });
  await assert.rejects(
    host.receive({ type: 'load', modelPath: '', gpu: 'off', contextTokens: null, parallel: 1 }),
    /too large/,
  );
});

const PREFIX = 'a conversation that is longer than the shortest useful prefix';

test('a prompt that goes on from an earlier one evaluates only what is new, and says so', async () => {
  const model = new LetterModel();
  const { host, until, outputs, ended } = await loadedHost(model.native(3));
  await host.receive({ type: 'generate', id: 1, order: laneOrder(PREFIX) });
  await until(() => ended(1));
  assert.equal(outputs(1).at(-1)?.end?.cachedTokens, 0);
  assert.equal(String.fromCodePoint(...(model.held[0] ?? [])), `${PREFIX}abc`, 'the last token is not evaluated yet');
  model.evaluated.length = 0;
  await host.receive({ type: 'generate', id: 2, order: laneOrder(`${PREFIX}abca and so on`, { maxTokens: 1 }) });
  await until(() => ended(2));
  assert.deepEqual(model.evaluated, ['0+11!']);
  assert.equal(outputs(2).at(-1)?.end?.cachedTokens, PREFIX.length + 3);
  assert.equal(outputs(2).at(-1)?.end?.promptTokens, PREFIX.length + 14);
});

test('the same prompt once more evaluates its last token', async () => {
  const model = new LetterModel();
  const { host, until, outputs, ended } = await loadedHost(model.native(1));
  for (const id of [1, 2]) {
    model.evaluated.length = 0;
    await host.receive({ type: 'generate', id, order: laneOrder(PREFIX) });
    await until(() => ended(id));
  }
  assert.equal(model.evaluated[0], '0+1!');
  assert.equal(outputs(2).at(-1)?.end?.cachedTokens, PREFIX.length - 1);
  assert.equal(
    outputs(2)
      .map(({ text }) => text)
      .join(''),
    'abca',
  );
});

test('a sequence that cannot be cut where asked evaluates the rest again', async () => {
  const model = new LetterModel();
  const { host, until, outputs, ended } = await loadedHost(model.native(1));
  await host.receive({ type: 'generate', id: 1, order: laneOrder(PREFIX) });
  await until(() => ended(1));
  model.mostKept = 10;
  model.evaluated.length = 0;
  await host.receive({ type: 'generate', id: 2, order: laneOrder(PREFIX, { maxTokens: 1 }) });
  await until(() => ended(2));
  assert.deepEqual(model.evaluated, [`0+${PREFIX.length - 10}!`]);
  assert.equal(outputs(2).at(-1)?.end?.cachedTokens, 10);
});

test('what a cancelled request had evaluated serves the next one', async () => {
  const model = new LetterModel();
  const { host, sent, until, outputs, ended } = await loadedHost(model.native(2, 10_000));
  await host.receive({ type: 'generate', id: 1, order: laneOrder(PREFIX, { maxTokens: 9_000 }) });
  await until(() => outputs(1).length >= 5);
  await host.receive({ type: 'cancel', id: 1 });
  await until(() => sent.some((message) => message.type === 'released'));
  const held = String.fromCodePoint(...(model.held[0] ?? []));
  assert.ok(held.startsWith(`${PREFIX}abca`));
  await host.receive({ type: 'generate', id: 2, order: laneOrder(`${held}?`, { maxTokens: 1 }) });
  await until(() => ended(2));
  assert.equal(outputs(2).at(-1)?.end?.cachedTokens, held.length);
});

const textOf = (steps: readonly StepOutput[]): string => steps.map(({ text }) => text).join('');
const tokensOf = (steps: readonly StepOutput[]): number[] => steps.flatMap(({ tokens }) => [...tokens]);

test('an answer resumed after any token gives the rest: tokens, text and end', async () => {
  const asked: Partial<LaneOrder>[] = [
    { maxTokens: 9 },
    { maxTokens: 20, stop: ['cab', 'cabcabx'] },
    { maxTokens: 8, stop: ['bcabcx'] },
    { maxTokens: 3, echo: true },
  ];
  for (const fields of asked) {
    const { host, until, outputs, ended } = await loadedHost(new LetterModel().native(2));
    let id = 0;
    const run = async (resumed: readonly number[]): Promise<StepOutput[]> => {
      id += 1;
      await host.receive({ type: 'generate', id, order: laneOrder('hi', { ...fields, resumed }) });
      await until(() => ended(id));
      return outputs(id);
    };
    const whole = await run([]);
    const tokens = tokensOf(whole);
    assert.ok(tokens.length >= 3);
    for (let cut = 0; cut < tokens.length; cut += 1) {
      const rest = await run(tokens.slice(0, cut));
      assert.deepEqual(tokensOf(rest), tokens.slice(cut));
      assert.equal(
        textOf(whole.slice(0, cut)) + textOf(rest),
        textOf(whole),
        `after ${cut} of ${JSON.stringify(fields)}`,
      );
      assert.equal(rest.at(-1)?.end?.finish, whole.at(-1)?.end?.finish);
      assert.equal(rest.at(-1)?.end?.completionTokens, tokens.length - cut);
    }
    const [nothing, ...more] = await run(tokens);
    assert.deepEqual([nothing?.tokens, nothing?.text, nothing?.end?.finish], [[], '', whole.at(-1)?.end?.finish]);
    assert.equal(more.length, 0);
  }
});

test('a report is never text alone: what is held back comes with the end', async () => {
  const model = new LetterModel();
  model.ends = 4;
  const { host, until, outputs, ended } = await loadedHost(model.native(1));
  await host.receive({ type: 'generate', id: 1, order: laneOrder('hi', { maxTokens: 9, stop: ['abcax'] }) });
  await until(() => ended(1));
  assert.deepEqual(
    outputs(1).map(({ tokens, text, end }) => [tokens.length, text, end?.finish ?? null]),
    [
      [1, '', null],
      [1, '', null],
      [1, '', null],
      [1, '', null],
      [0, 'abca', 'stop'],
    ],
  );
});

test('an order that is only counted takes no sequence', async () => {
  const model = new LetterModel();
  const { host, sent, outputs } = await loadedHost(model.native(1));
  const only: Partial<LaneOrder>[] = [
    { finished: true, resumed: [97, 98] },
    { maxTokens: 0, echo: true },
    { maxTokens: 0 },
  ];
  for (const [id, fields] of only.entries()) {
    await host.receive({ type: 'generate', id, order: laneOrder('hi', fields) });
    assert.equal(sent.filter((message) => message.type === 'accepted').length, id + 1);
    assert.equal(outputs(id).length, 1);
    assert.equal(outputs(id)[0]?.end?.promptTokens, 2);
    assert.deepEqual(outputs(id)[0]?.tokens, []);
  }
  assert.equal(outputs(1)[0]?.text, 'hi');
  assert.deepEqual(model.evaluated, []);
});

test('an echoed prompt is scored in slices, with the first token or alone', async () => {
  const model = new LetterModel();
  const { host, until, outputs, ended } = await loadedHost(model.native(1, 200));
  const prompt = 'x'.repeat(70);
  await host.receive({ type: 'generate', id: 1, order: laneOrder(prompt, { echo: true, logprobs: 0, maxTokens: 2 }) });
  await until(() => ended(1));
  assert.deepEqual(model.evaluated, ['0?32', '0?32', '0?5', '0+1!', '0+1!']);
  const [first, second] = outputs(1);
  assert.equal(first?.text, `${prompt}a`);
  assert.equal(first?.promptLogprobs?.length, 70);
  assert.equal(first?.promptLogprobs?.[0], null);
  assert.equal(second?.promptLogprobs, undefined);
  model.evaluated.length = 0;
  await host.receive({ type: 'generate', id: 2, order: laneOrder('xyz', { echo: true, logprobs: 0, maxTokens: 0 }) });
  await until(() => ended(2));
  assert.deepEqual(model.evaluated, ['0?2']);
  assert.deepEqual(
    outputs(2).map(({ text, tokens, promptLogprobs, end }) => [
      text,
      tokens.length,
      promptLogprobs?.length,
      end?.finish,
    ]),
    [['xyz', 0, 3, 'length']],
  );
});

test('what does not fit a vocabulary is refused by its field', async () => {
  const { host, sent } = await loadedHost(new LetterModel().native(1));
  const { sampling } = laneOrder('');
  const refused: [Partial<LaneOrder>, string, string | undefined][] = [
    [{ prompt: { kind: 'tokens', tokens: [1, 0x110000] } }, 'invalid_request', 'prompt'],
    [{ prompt: { kind: 'tokens', tokens: [] } }, 'invalid_request', 'prompt'],
    [{ prompt: { kind: 'tokens', tokens: [1.5] } }, 'invalid_request', 'prompt'],
    [{ prompt: { kind: 'fill', prefix: 'a', suffix: 'b' } }, 'invalid_request', 'suffix'],
    [{ sampling: { ...sampling, logitBias: [[0x110000, 1]] } }, 'invalid_request', 'logit_bias'],
    [{ resumed: [-1] }, 'cannot_resume', undefined],
    [{ maxTokens: null, resumed: Array.from({ length: 98 }, () => 97) }, 'cannot_resume', undefined],
  ];
  for (const [id, [fields, code, param]] of refused.entries()) {
    await host.receive({ type: 'generate', id, order: laneOrder('hi', fields) });
    const last = sent.at(-1);
    assert.ok(last?.type === 'refused' && last.id === id, JSON.stringify(fields));
    assert.deepEqual([last.code, last.param], [code, param]);
  }
});

test('a task is answered by its result, a cancelled one by its release', async () => {
  const native = new LetterModel().native(1);
  const { host, sent, until } = await loadedHost(native);
  const task = { type: 'detokenize', tokens: [] } as const;
  await host.receive({ type: 'task', id: 1, task });
  const result = sent.at(-1);
  assert.ok(result?.type === 'result' && result.id === 1 && result.result.type === 'detokenize');
  const embedding = host.receive({
    type: 'task',
    id: 2,
    task: { type: 'embed', inputs: ['a'], firstInput: 0, dimensions: null },
  });
  await host.receive({ type: 'cancel', id: 2 });
  await embedding;
  await until(() => sent.some((message) => message.type === 'released'));
  assert.deepEqual(sent.at(-1), { type: 'released', id: 2, completionTokens: 0 });
});

test('a grammar follows the tokens that stand already, and binds those that come', async () => {
  const model = new LetterModel();
  const native = model.native(1);
  const accepted: number[] = [];
  let compiled = 0;
  const grammar = async () => {
    compiled += 1;
    return { state: {} as never, accept: (token: number) => accepted.push(token) };
  };
  const { host, until, ended } = await loadedHost({ ...native, grammar });
  const json = { constraint: { type: 'json' }, maxTokens: 5 } as const;
  await host.receive({ type: 'generate', id: 1, order: laneOrder('hi', { ...json, resumed: [97, 98, 99] }) });
  await until(() => ended(1));
  assert.deepEqual(accepted, [97, 98, 99]);
  assert.deepEqual(model.bound, [true, true]);
  await host.receive({ type: 'generate', id: 2, order: laneOrder('hi', { ...json, resumed: [97], finished: true }) });
  assert.equal(compiled, 1, 'what is only counted needs none');
});
