/** The official `openai` client against the facade, in front of a scripted dispatcher. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import OpenAI, {
  APIError,
  APIUserAbortError,
  AuthenticationError,
  BadRequestError,
  InternalServerError,
  RateLimitError,
} from 'openai';
import { MeshError } from '../../node/common/errors.ts';
import { answering, failing, hanging, saying, scriptedText } from '../support/scripted-backend.ts';
import { type ScriptedFacade, startFacade } from '../support/scripted-facade.ts';

const MESSAGES: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content: 'hi' }];
const ODD_TEXTS = ['\n\ndata: [DONE]\n\n', '\u2028', '😀', '"\\', '\r\n: x', '\u0085', '\0'];

let scripted: ScriptedFacade;
let openai: OpenAI;

before(async () => {
  scripted = await startFacade({
    five: answering(5),
    long: answering(200),
    odd: saying(ODD_TEXTS),
    empty: saying([]),
    broken: failing(new MeshError('peer_lost', 'The peer is gone.'), 3),
    full: failing(new MeshError('overloaded', 'The queue is full.', { retryAfterMs: 1000 })),
    crashed: failing(new MeshError('engine_failed', 'The engine crashed.')),
    small: failing(new MeshError('context_length_exceeded', 'Too long.', { param: 'messages' })),
    hang: hanging(2),
    silent: hanging(0),
  });
  openai = new OpenAI({ baseURL: `${scripted.url}/v1`, apiKey: 'none', maxRetries: 0 });
});
after(() => scripted.stop());

/** The mesh's id of a request, from the id of its answer. */
const requestIdOf = (answerId: string): string => answerId.replace(/^(?:chatcmpl|cmpl)-/, '');

async function all<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of stream) items.push(item);
  return items;
}

describe('chat completions', () => {
  it('gives a whole answer with every field of the public schema', async () => {
    const { data, response } = await openai.chat.completions
      .create({ model: 'five', messages: MESSAGES })
      .withResponse();
    assert.deepEqual(Object.keys(data).sort(), ['choices', 'created', 'id', 'model', 'object', 'timings', 'usage']);
    assert.match(data.id, /^chatcmpl-[0-9a-f]{32}$/);
    assert.equal(data.object, 'chat.completion');
    assert.equal(data.model, 'five');
    assert.ok(Number.isInteger(data.created));
    assert.deepEqual(data.choices, [
      {
        index: 0,
        message: { role: 'assistant', content: scriptedText(requestIdOf(data.id), 5), refusal: null },
        logprobs: null,
        finish_reason: 'stop',
      },
    ]);
    assert.deepEqual(data.usage, {
      prompt_tokens: 3,
      completion_tokens: 5,
      total_tokens: 8,
      prompt_tokens_details: { cached_tokens: 1 },
    });
    assert.equal(response.headers.get('x-meshnode-node'), '12D3KooWScripted');
    assert.equal(response.headers.get('x-meshnode-attempts'), '1');
    assert.equal(response.headers.get('x-request-id'), `req_${requestIdOf(data.id)}`);
  });

  it('streams chunks with every field of the public schema', async () => {
    const { data, response } = await openai.chat.completions
      .create({ model: 'five', messages: MESSAGES, stream: true })
      .withResponse();
    const chunks = await all(data);
    for (const chunk of chunks) {
      assert.deepEqual(Object.keys(chunk).sort(), ['choices', 'created', 'id', 'model', 'object']);
      assert.equal(chunk.object, 'chat.completion.chunk');
      assert.equal(chunk.id, chunks[0]?.id);
      assert.equal(chunk.created, chunks[0]?.created);
      assert.deepEqual(Object.keys(chunk.choices[0] ?? {}).sort(), ['delta', 'finish_reason', 'index', 'logprobs']);
    }
    assert.deepEqual(chunks[0]?.choices[0]?.delta, { role: 'assistant', content: '' });
    assert.deepEqual(chunks.at(-1)?.choices[0], { index: 0, delta: {}, logprobs: null, finish_reason: 'stop' });
    const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');
    assert.equal(text, scriptedText(requestIdOf(chunks[0]?.id ?? ''), 5));
    assert.equal(response.headers.get('x-meshnode-node'), '12D3KooWScripted');
  });

  it('streams usage in a last chunk without choices only when asked', async () => {
    const stream = await openai.chat.completions.create({
      model: 'five',
      messages: MESSAGES,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = await all(stream);
    assert.deepEqual(chunks.at(-1)?.choices, []);
    assert.equal(chunks.at(-1)?.usage?.total_tokens, 8);
    assert.ok(chunks.slice(0, -1).every((chunk) => chunk.usage === null && chunk.choices.length === 1));
  });

  it('passes any text through unchanged', async () => {
    const stream = await openai.chat.completions.create({ model: 'odd', messages: MESSAGES, stream: true });
    const contents = (await all(stream)).map((chunk) => chunk.choices[0]?.delta.content);
    assert.deepEqual(contents, ['', ...ODD_TEXTS, undefined]);
    const whole = await openai.chat.completions.create({ model: 'odd', messages: MESSAGES });
    assert.equal(whole.choices[0]?.message.content, ODD_TEXTS.join(''));
  });

  it('gives an empty answer as one', async () => {
    const whole = await openai.chat.completions.create({ model: 'empty', messages: MESSAGES });
    assert.equal(whole.choices[0]?.message.content, '');
    const runner = openai.chat.completions.stream({ model: 'empty', messages: MESSAGES });
    assert.equal((await runner.finalChatCompletion()).choices[0]?.message.content, '');
  });

  it('works under the other base path and through the stream helper', async () => {
    const other = new OpenAI({ baseURL: `${scripted.url}/api/v1/inference`, apiKey: 'none' });
    const answer = await other.chat.completions.stream({ model: 'five', messages: MESSAGES }).finalChatCompletion();
    assert.equal(answer.choices[0]?.message.content, scriptedText(requestIdOf(answer.id), 5));
  });
});

describe('completions', () => {
  it('gives a whole answer', async () => {
    const answer = await openai.completions.create({ model: 'five', prompt: 'hi' });
    assert.match(answer.id, /^cmpl-/);
    assert.equal(answer.object, 'text_completion');
    assert.deepEqual(answer.choices, [
      { index: 0, text: scriptedText(requestIdOf(answer.id), 5), logprobs: null, finish_reason: 'stop' },
    ]);
  });

  it('streams', async () => {
    const chunks = await all(await openai.completions.create({ model: 'five', prompt: 'hi', stream: true }));
    assert.ok(chunks.every((chunk) => chunk.object === 'text_completion'));
    const text = chunks.map((chunk) => chunk.choices[0]?.text ?? '').join('');
    assert.equal(text, scriptedText(requestIdOf(chunks[0]?.id ?? ''), 5));
    assert.equal(chunks.at(-1)?.choices[0]?.finish_reason, 'stop');
  });
});

describe('models', () => {
  it('are listed, local ones first, with the four public fields', async () => {
    const models = (await openai.models.list()).data;
    assert.equal(models[0]?.owned_by, 'llama.cpp');
    assert.deepEqual(models.at(-1), {
      id: 'far/model',
      object: 'model',
      created: 1_760_000_000,
      owned_by: 'remote',
      meshnode: {
        nodes: ['12D3KooWOther'],
        state: 'resident',
        context_length: 2048,
        quantization: 'F16',
        size_bytes: 5_000_000,
      },
      meta: { n_ctx: 2048, size: 5_000_000, quantization: 'F16' },
    });
  });

  it('are retrieved by id, slashes included, encoded or not', async () => {
    assert.equal((await openai.models.retrieve('far/model')).id, 'far/model');
    const plain = await fetch(`${scripted.url}/v1/models/far/model`);
    assert.equal(((await plain.json()) as { id: string }).id, 'far/model');
    await assert.rejects(openai.models.retrieve('nowhere'), { status: 404, code: 'not_found' });
  });
});

describe('errors', () => {
  const rows = [
    ['nowhere', InternalServerError, 503, 'model_not_available'],
    ['full', RateLimitError, 429, 'overloaded'],
    ['crashed', InternalServerError, 500, 'engine_failed'],
    ['small', BadRequestError, 400, 'context_length_exceeded'],
  ] as const;
  for (const [model, kind, status, code] of rows) {
    for (const stream of [false, true]) {
      it(`${code} raises ${kind.name}, ${stream ? 'streamed' : 'whole'}`, async () => {
        await assert.rejects(
          openai.chat.completions.create({ model, messages: MESSAGES, stream }),
          (error: unknown) => {
            assert.ok(error instanceof kind);
            assert.equal(error.status, status);
            assert.equal(error.code, code);
            assert.ok(error.requestID);
            return true;
          },
        );
      });
    }
  }

  it('model_not_available is not retried, overloaded is', async () => {
    const retrying = new OpenAI({ baseURL: `${scripted.url}/v1`, apiKey: 'none', maxRetries: 1 });
    const requestsOf = async (model: string): Promise<number> => {
      const before = scripted.dispatcher.dispatched.length;
      await assert.rejects(retrying.chat.completions.create({ model, messages: MESSAGES }));
      return scripted.dispatcher.dispatched.length - before;
    };
    assert.equal(await requestsOf('nowhere'), 1);
    assert.equal(await requestsOf('full'), 2);
  });

  it('a stream that breaks raises after its text, and is never taken for whole', async () => {
    const stream = await openai.chat.completions.create({ model: 'broken', messages: MESSAGES, stream: true });
    let text = '';
    let id = '';
    await assert.rejects(
      async () => {
        for await (const chunk of stream) {
          id = chunk.id;
          text += chunk.choices[0]?.delta.content ?? '';
        }
      },
      (error: unknown) => error instanceof APIError && error.code === 'peer_lost',
    );
    assert.equal(text, scriptedText(requestIdOf(id), 3));
  });

  it('a wrong key raises AuthenticationError, the right one answers', async () => {
    const keyed = await startFacade({ five: answering(5) }, { apiKey: 'sk-right' });
    try {
      const client = (apiKey: string): OpenAI => new OpenAI({ baseURL: `${keyed.url}/v1`, apiKey, maxRetries: 0 });
      await assert.rejects(client('sk-wrong').models.list(), AuthenticationError);
      assert.equal((await client('sk-right').models.list()).data.length, 2);
      const response = await fetch(`${keyed.url}/metrics`);
      assert.equal(response.status, 401);
      assert.equal(response.headers.get('www-authenticate'), 'Bearer');
      await response.arrayBuffer();
      assert.equal((await fetch(`${keyed.url}/health`)).status, 200);
    } finally {
      await keyed.stop();
    }
  });
});

describe('a client that goes away', () => {
  it('aborts the dispatch of its stream', async () => {
    const index = scripted.dispatcher.dispatched.length;
    const stream = await openai.chat.completions.create({ model: 'hang', messages: MESSAGES, stream: true });
    for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break;
    const { signal } = await scripted.dispatcher.nth(index);
    if (!signal.aborted) await once(signal, 'abort');
    assert.equal((signal.reason as MeshError).code, 'client_closed');
  });

  for (const stream of [false, true]) {
    it(`aborts the dispatch before its first text, ${stream ? 'streamed' : 'whole'}`, async () => {
      const index = scripted.dispatcher.dispatched.length;
      const controller = new AbortController();
      const answer = openai.chat.completions.create(
        { model: 'silent', messages: MESSAGES, stream },
        { signal: controller.signal },
      );
      const rejected = assert.rejects(answer, APIUserAbortError);
      const { signal } = await scripted.dispatcher.nth(index);
      controller.abort();
      await rejected;
      if (!signal.aborted) await once(signal, 'abort');
      assert.equal((signal.reason as MeshError).code, 'client_closed');
    });
  }
});

describe('many clients', () => {
  it('get their own tokens only, 32 streams at once', async () => {
    const answers = Array.from({ length: 32 }, async () => {
      const stream = await openai.chat.completions.create({ model: 'long', messages: MESSAGES, stream: true });
      const chunks = await all(stream);
      const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');
      assert.equal(text, scriptedText(requestIdOf(chunks[0]?.id ?? ''), 200));
      return chunks[0]?.id;
    });
    assert.equal(new Set(await Promise.all(answers)).size, 32);
  });
});
