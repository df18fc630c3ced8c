/** Everything that an answer may have, asked for with the official `openai` client and checked against OpenAI's shapes. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import OpenAI from 'openai';
import type { ChunkEvent, InferenceEvent, TokenLogprob } from '../../protocols/inference/events.ts';
import { eventData } from '../support/event-stream.ts';
import { assertShape } from '../support/openai-shapes.ts';
import { accepted, answering, chunk, end, type Script } from '../support/scripted-backend.ts';
import { type ScriptedFacade, startFacade } from '../support/scripted-facade.ts';

const MESSAGES: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content: 'hi' }];
const TOOLS: OpenAI.ChatCompletionTool[] = [
  { type: 'function', function: { name: 'weather', parameters: { type: 'object' } } },
];

const logprob = (token: string): TokenLogprob => {
  const own = { token, bytes: [...Buffer.from(token)], logprob: -0.25 };
  return { ...own, top: [own] };
};

function giving(chunks: readonly ChunkEvent[]): Script {
  return async function* ({ choices = 1 }) {
    yield accepted();
    yield* chunks;
    yield {
      ...end(chunks.length),
      finishReasons: Array.from({ length: choices }, () => chunks.at(-1)?.finish ?? 'stop'),
    };
  };
}

const SCRIPTS: Record<string, Script> = {
  calling: giving([
    { ...chunk('', 0), reasoning: 'I need a tool.' },
    { ...chunk('', 1), toolCalls: [{ index: 0, id: 'call_a', name: 'weather', arguments: '' }] },
    { ...chunk('', 2), toolCalls: [{ index: 0, arguments: '{"city":"Ulm"}' }] },
    {
      ...chunk('', 3),
      toolCalls: [{ index: 1, id: 'call_b', name: 'weather', arguments: '{}' }],
      finish: 'tool_calls',
    },
  ]),
  likely: giving([
    { ...chunk('a', 0), logprobs: [logprob('a')] },
    { ...chunk('b', 1), logprobs: [logprob('b')], finish: 'stop' },
  ]),
  echoing: giving([
    { ...chunk('Once upon', 0), promptLogprobs: [null, logprob(' upon')], logprobs: [logprob(' a')] },
    { ...chunk(' a', 1), tokens: [], finish: 'length' },
  ]),
  triple: giving([0, 1, 2].map((choice) => ({ ...chunk(`answer ${choice}`), choice, finish: 'stop' as const }))),
  five: answering(5),
  loading: async function* (_request, signal): AsyncGenerator<InferenceEvent> {
    while (!signal.aborted) {
      yield { type: 'progress', state: 'loading', fraction: 0.42 };
      await new Promise((resolve) => setImmediate(resolve));
    }
  },
};

/** Without what the client adds of its own. */
const called = (call: OpenAI.ChatCompletionMessageToolCall): object => {
  assert.ok(call.type === 'function');
  return { name: call.function.name, arguments: call.function.arguments };
};

let scripted: ScriptedFacade;
let openai: OpenAI;

before(async () => {
  scripted = await startFacade(SCRIPTS, { loadWaitMs: 20, headerWaitMs: 20 });
  openai = new OpenAI({ baseURL: `${scripted.url}/v1`, apiKey: 'none', maxRetries: 0 });
});
after(() => scripted.stop());

async function post(path: string, body: object): Promise<Response> {
  const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
  return await fetch(`${scripted.url}/v1${path}`, init);
}

describe('the shapes of answers', () => {
  const chats = Object.keys(SCRIPTS).filter((model) => model !== 'loading' && model !== 'echoing');
  const completions = ['five', 'echoing', 'likely', 'triple'];
  const cases = [
    ...chats.map((model) => ['/chat/completions', 'chat', { model, messages: MESSAGES, tools: TOOLS }] as const),
    ...completions.map((model) => ['/completions', 'completion', { model, prompt: 'Once' }] as const),
  ];
  for (const [path, shape, body] of cases) {
    const n = body.model === 'triple' ? 3 : 1;
    it(`are OpenAI's for ${body.model} at ${path}, whole and streamed`, async () => {
      assertShape(shape, await (await post(path, { ...body, n })).json());
      const stream = { ...body, n, stream: true, stream_options: { include_usage: true } };
      const events = eventData(await (await post(path, stream)).text());
      assert.equal(events.pop(), '[DONE]');
      for (const event of events) assertShape(`${shape}Chunk`, JSON.parse(event));
    });
  }

  it("are OpenAI's for models and for errors", async () => {
    assertShape('models', await (await fetch(`${scripted.url}/v1/models`)).json());
    assertShape('error', await (await post('/chat/completions', { model: 'nowhere', messages: MESSAGES })).json());
    assertShape('error', await (await post('/chat/completions', { messages: MESSAGES })).json());
    assertShape('error', await (await fetch(`${scripted.url}/v1/nothing`)).json());
  });
});

describe('the official client', () => {
  it('puts streamed tool calls together', async () => {
    const stream = openai.chat.completions.stream({ model: 'calling', messages: MESSAGES, tools: TOOLS });
    const { choices } = await stream.finalChatCompletion();
    assert.equal(choices[0]?.finish_reason, 'tool_calls');
    const whole = await openai.chat.completions.create({ model: 'calling', messages: MESSAGES, tools: TOOLS });
    const message = whole.choices[0]?.message;
    assert.equal(message?.content, null);
    assert.deepEqual(message?.tool_calls, [
      { id: 'call_a', type: 'function', function: { name: 'weather', arguments: '{"city":"Ulm"}' } },
      { id: 'call_b', type: 'function', function: { name: 'weather', arguments: '{}' } },
    ]);
    const streamed = choices[0]?.message.tool_calls?.map((call) => ({ id: call.id, function: called(call) }));
    assert.deepEqual(
      streamed,
      message?.tool_calls?.map((call) => ({ id: call.id, function: called(call) })),
    );
  });

  it('reads log probabilities of chats and completions', async () => {
    const chat = await openai.chat.completions.create({ model: 'likely', messages: MESSAGES, logprobs: true });
    assert.deepEqual(
      chat.choices[0]?.logprobs?.content?.map(({ token }) => token),
      ['a', 'b'],
    );
    const completion = await openai.completions.create({
      model: 'echoing',
      prompt: 'Once upon',
      echo: true,
      logprobs: 1,
    });
    assert.equal(completion.choices[0]?.text, 'Once upon a');
    assert.deepEqual(completion.choices[0]?.logprobs, {
      tokens: ['Once', ' upon', ' a'],
      token_logprobs: [null, -0.25, -0.25],
      top_logprobs: [null, { ' upon': -0.25 }, { ' a': -0.25 }],
      text_offset: [0, 4, 9],
    });
  });

  it('gets as many answers as it asked for', async () => {
    const { choices } = await openai.chat.completions.create({ model: 'triple', messages: MESSAGES, n: 3 });
    assert.deepEqual(
      choices.map(({ index, message }) => [index, message.content]),
      [0, 1, 2].map((index) => [index, `answer ${index}`]),
    );
  });
});

describe('a model that loads for long', () => {
  it('gets one who does not stream a 503 with its progress and when to come back', async () => {
    const response = await post('/chat/completions', { model: 'loading', messages: MESSAGES });
    assert.equal(response.status, 503);
    assert.ok(Number(response.headers.get('retry-after')) >= 1);
    const body = (await response.json()) as { error: { code: string; progress: object } };
    assertShape('error', body);
    assert.equal(body.error.code, 'model_not_loaded');
    assert.deepEqual(body.error.progress, { state: 'loading', fraction: 0.42 });
    assert.equal(scripted.dispatcher.dispatched.at(-1)?.settled, true, 'the request was let go');
  });

  it('gets one who streams comments that say how far it is', async () => {
    const controller = new AbortController();
    const init = { model: 'loading', messages: MESSAGES, stream: true };
    const response = await fetch(`${scripted.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(init),
      signal: controller.signal,
    });
    const { value } = (await response.body?.getReader().read()) ?? {};
    assert.equal(Buffer.from(value ?? []).toString(), ': loading 42 %\n\n');
    controller.abort();
  });
});
