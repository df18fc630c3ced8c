import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChatTemplate } from '../../../node/backends/llama-cpp/chat-template.ts';
import { EngineHost } from '../../../node/backends/llama-cpp/engine-host.ts';
import type { GenerationRequest } from '../../../node/backends/llama-cpp/generation-request.ts';
import type { FromChild, StepOutput } from '../../../node/backends/llama-cpp/ipc.ts';
import type { NativeModel, NativeSequence } from '../../../node/backends/llama-cpp/native-model.ts';
import { MeshError } from '../../../node/common/errors.ts';

const END = 0;

/** A model whose tokens are characters and whose answer to any prompt is `abcabc…`; notes every evaluation. */
class LetterModel {
  readonly evaluated: string[] = [];
  /** What each sequence holds. */
  readonly held: number[][] = [];
  /** Called before each sampled token. */
  beforeToken: (sequence: number) => void = () => {};
  /** Most tokens that a sequence can be cut down to. */
  mostKept = Number.POSITIVE_INFINITY;

  native(sequences: number, contextTokens = 100): NativeModel {
    return {
      contextTokens,
      tokenizer: {
        leadingToken: null,
        tokenize: (text) => [...text].map((character) => character.codePointAt(0) ?? 0),
      },
      template: new ChatTemplate({ template: null, bosToken: '', eosToken: '', controlTokens: [] }),
      detokenize: (tokens) => String.fromCodePoint(...tokens),
      endsAnswer: (token) => token === END,
      usesGpu: false,
      sequences: Array.from({ length: sequences }, (_, id) => this.#sequence(id)),
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
      next: async (tokens, _sampling, generated) => {
        this.evaluated.push(`${id}+${tokens.length}!`);
        this.beforeToken(id);
        held.push(...tokens);
        return 'abc'.codePointAt(generated.length % 3) ?? 0;
      },
    };
  }
}

const request = (text: string, fields: Partial<GenerationRequest> = {}): GenerationRequest => ({
  prompt: { text },
  maxTokens: 4,
  stop: [],
  sampling: {
    temperature: 0,
    topP: 1,
    topK: 40,
    minP: 0,
    repeatPenalty: 1,
    frequencyPenalty: 0,
    presencePenalty: 0,
    seed: 1,
  },
  ...fields,
});

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
  await Promise.all([1, 2].map((id) => host.receive({ type: 'generate', id, request: request('hi') })));
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
  await host.receive({ type: 'generate', id: 1, request: request('hi', { maxTokens: 9_000 }) });
  await host.receive({ type: 'generate', id: 2, request: request('hi', { maxTokens: 9_000 }) });
  await until(() => outputs(1).length >= 5);
  const before = model.evaluated.filter((entry) => entry.startsWith('0+')).length;
  await host.receive({ type: 'cancel', id: 1 });
  await until(() => sent.some((message) => message.type === 'released'));
  const after = model.evaluated.filter((entry) => entry.startsWith('0+')).length;
  assert.ok(after - before <= 1, `${after - before} more tokens`);
  const shown = outputs(1).reduce((sum, { tokens }) => sum + tokens.length, 0);
  const released = sent.find((message) => message.type === 'released');
  assert.ok(released !== undefined && released.completionTokens - shown <= 1);
  await host.receive({ type: 'generate', id: 3, request: request('hi') });
  await until(() => outputs(3).length > 0);
  assert.ok(model.evaluated.filter((entry) => entry.startsWith('0+')).length > after);
  await host.receive({ type: 'cancel', id: 2 });
  await until(() => sent.filter((message) => message.type === 'released').length === 2);
});

test('a cancel that overtakes the start is obeyed', async () => {
  const { host, sent } = await loadedHost(new LetterModel().native(1));
  const starting = host.receive({ type: 'generate', id: 1, request: request('hi') });
  await host.receive({ type: 'cancel', id: 1 });
  await starting;
  assert.deepEqual(sent.at(-1), { type: 'released', id: 1, completionTokens: 0 });
});

test('a long prompt is evaluated in slices of 128 tokens', async () => {
  const model = new LetterModel();
  const { host, until, ended } = await loadedHost(model.native(1, 1_000));
  await host.receive({ type: 'generate', id: 1, request: request('x'.repeat(300), { maxTokens: 1 }) });
  await until(() => ended(1));
  assert.deepEqual(model.evaluated, ['0+128', '0+128', '0+44!']);
});

test('an answer longer than the room is clamped to it', async () => {
  const { host, until, outputs, ended } = await loadedHost(new LetterModel().native(1, 20));
  await host.receive({ type: 'generate', id: 1, request: request('x'.repeat(15), { maxTokens: 100 }) });
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
  await host.receive({ type: 'generate', id: 1, request: request('hi') });
  await until(() => sent.some((message) => message.type === 'refused'));
  assert.deepEqual(sent.at(-1), { type: 'refused', id: 1, code: 'engine_failed', message: 'decode failed' });
  model.beforeToken = () => {};
  await host.receive({ type: 'generate', id: 2, request: request('hi') });
  await until(() => ended(2));
});

test('a prompt without room is refused with its code, before any evaluation', async () => {
  const model = new LetterModel();
  const { host, sent } = await loadedHost(model.native(1, 10));
  await host.receive({ type: 'generate', id: 1, request: request('x'.repeat(10)) });
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
  await host.receive({ type: 'generate', id: 1, request: request('hi') });
  await assert.rejects(
    host.receive({ type: 'load', modelPath: '', gpu: 'off', contextTokens: null, parallel: 1 }),
    /too large/,
  );
});

const PREFIX = 'a conversation that is longer than the shortest useful prefix';

test('a prompt that goes on from an earlier one evaluates only what is new, and says so', async () => {
  const model = new LetterModel();
  const { host, until, outputs, ended } = await loadedHost(model.native(3));
  await host.receive({ type: 'generate', id: 1, request: request(PREFIX) });
  await until(() => ended(1));
  assert.equal(outputs(1).at(-1)?.end?.cachedTokens, 0);
  assert.equal(String.fromCodePoint(...(model.held[0] ?? [])), `${PREFIX}abc`, 'the last token is not evaluated yet');
  model.evaluated.length = 0;
  await host.receive({ type: 'generate', id: 2, request: request(`${PREFIX}abca and so on`, { maxTokens: 1 }) });
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
    await host.receive({ type: 'generate', id, request: request(PREFIX) });
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
  await host.receive({ type: 'generate', id: 1, request: request(PREFIX) });
  await until(() => ended(1));
  model.mostKept = 10;
  model.evaluated.length = 0;
  await host.receive({ type: 'generate', id: 2, request: request(PREFIX, { maxTokens: 1 }) });
  await until(() => ended(2));
  assert.deepEqual(model.evaluated, [`0+${PREFIX.length - 10}!`]);
  assert.equal(outputs(2).at(-1)?.end?.cachedTokens, 10);
});

test('what a cancelled request had evaluated serves the next one', async () => {
  const model = new LetterModel();
  const { host, sent, until, outputs, ended } = await loadedHost(model.native(2, 10_000));
  await host.receive({ type: 'generate', id: 1, request: request(PREFIX, { maxTokens: 9_000 }) });
  await until(() => outputs(1).length >= 5);
  await host.receive({ type: 'cancel', id: 1 });
  await until(() => sent.some((message) => message.type === 'released'));
  const held = String.fromCodePoint(...(model.held[0] ?? []));
  assert.ok(held.startsWith(`${PREFIX}abca`));
  await host.receive({ type: 'generate', id: 2, request: request(`${held}?`, { maxTokens: 1 }) });
  await until(() => ended(2));
  assert.equal(outputs(2).at(-1)?.end?.cachedTokens, held.length);
});
