/** The routes whose answer is one result, in front of a scripted dispatcher. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { MeshError } from '../../node/common/errors.ts';
import type { EndEvent, InferenceEvent } from '../../protocols/inference/events.ts';
import { accepted, failing, hanging, SCRIPTED_NODE, type Script } from '../support/scripted-backend.ts';
import { type ScriptedFacade, startFacade } from '../support/scripted-facade.ts';

const TEXT = '{"object":"list","data":[],"odd":"Grüße 🦉"}';
const END: EndEvent = {
  type: 'end',
  finishReasons: [],
  usage: { promptTokens: 3, completionTokens: 0, cachedTokens: 0 },
  timings: { promptMs: 4, predictedMs: 0 },
};

/** Gives `TEXT`, a byte in each part. */
async function* bytewise(): AsyncGenerator<InferenceEvent> {
  yield accepted();
  for (const byte of Buffer.from(TEXT)) yield { type: 'result', body: Uint8Array.of(byte) };
  yield END;
}

const events = (...list: readonly InferenceEvent[]): Script =>
  async function* () {
    yield* list;
  };

const BODIES: Readonly<Record<string, object>> = {
  '/v1/embeddings': { input: 'hi' },
  '/v1/rerank': { query: 'q', documents: ['d'] },
  '/rerank': { query: 'q', documents: ['d'] },
  '/v1/tokenize': { prompt: 'hi' },
  '/tokenize': { content: 'hi' },
  '/v1/detokenize': { tokens: [1] },
  '/detokenize': { tokens: [1] },
  '/api/v1/inference/embeddings': { input: [1, 2] },
};

let scripted: ScriptedFacade;

before(async () => {
  scripted = await startFacade(
    {
      good: bytewise,
      cut: events(accepted(), { type: 'result', body: Buffer.from('{') }),
      empty: events(accepted(), END),
      full: failing(new MeshError('overloaded', 'The queue is full.', { retryAfterMs: 1000 })),
      hang: hanging(0),
      loading: async function* (_request, signal) {
        for (;;) {
          if (signal.aborted) return;
          yield { type: 'progress', state: 'loading', fraction: 0.25 };
          await new Promise(setImmediate);
        }
      },
    },
    { loadWaitMs: 50 },
  );
});
after(() => scripted.stop());

function post(route: string, body: object, type = 'application/json'): Promise<Response> {
  return fetch(scripted.url + route, { method: 'POST', headers: { 'content-type': type }, body: JSON.stringify(body) });
}

async function refusal(route: string, body: object): Promise<[status: number, code: string, param: string | null]> {
  const response = await post(route, body);
  const { error } = (await response.json()) as { error: { code: string; param: string | null } };
  return [response.status, error.code, error.param];
}

describe('a result', () => {
  it('goes out as it came, whatever parts it had, with who gave it', async () => {
    for (const [route, body] of Object.entries(BODIES)) {
      const response = await post(route, { model: 'good', ...body });
      assert.equal(await response.text(), TEXT, route);
      assert.equal(response.headers.get('content-type'), 'application/json; charset=utf-8');
      assert.equal(response.headers.get('x-meshnode-node'), SCRIPTED_NODE);
      assert.equal(response.headers.get('x-meshnode-attempts'), '1');
      assert.match(response.headers.get('x-request-id') ?? '', /./);
    }
  });

  it('that was cut, or never came, is an error and not half an answer', async () => {
    for (const model of ['cut', 'empty']) {
      const response = await post('/v1/embeddings', { model, input: 'hi' });
      assert.equal(response.status, 502);
      const { error } = (await response.json()) as { error: { code: string } };
      assert.equal(error.code, 'protocol_violation');
      assert.equal(response.headers.get('x-meshnode-attempts'), '1');
    }
  });
});

describe('a refusal', () => {
  it('is that of chat: the queue, an unknown model, a model that takes too long to load', async () => {
    const full = await post('/v1/rerank', { model: 'full', query: 'q', documents: ['d'] });
    assert.deepEqual([full.status, full.headers.get('retry-after')], [429, '1']);
    const [status, code] = await refusal('/v1/embeddings', { model: 'nobody', input: 'hi' });
    assert.deepEqual([status, code], [503, 'model_not_available']);
    const loading = await post('/v1/embeddings', { model: 'loading', input: 'hi' });
    assert.equal(loading.status, 503);
    assert.notEqual(loading.headers.get('retry-after'), null);
  });

  it('of a body comes before anything is sent, and names the field', async () => {
    const asked = scripted.dispatcher.dispatched.length;
    assert.deepEqual(await refusal('/v1/embeddings', { model: 'good' }), [400, 'invalid_request', 'input']);
    assert.deepEqual(await refusal('/v1/rerank', { model: 'good', query: 'q' }), [400, 'invalid_request', 'documents']);
    assert.deepEqual(await refusal('/tokenize', { prompt: 'q' }), [400, 'invalid_request', 'model']);
    const messages = [{ role: 'nobody', content: 'hi' }];
    assert.deepEqual(await refusal('/v1/tokenize', { model: 'good', messages }), [
      400,
      'invalid_request',
      'messages[0].role',
    ]);
    assert.equal((await post('/v1/embeddings', { model: 'good', input: 'hi' }, 'text/plain')).status, 415);
    assert.equal((await fetch(`${scripted.url}/v1/embeddings`)).status, 405);
    assert.equal(scripted.dispatcher.dispatched.length, asked);
  });
});

it('a client that leaves cancels its request', async () => {
  const gone = new AbortController();
  const earlier = scripted.dispatcher.dispatched.length;
  const asking = fetch(`${scripted.url}/v1/embeddings`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{"model":"hang","input":"hi"}',
    signal: gone.signal,
  });
  const { signal } = await scripted.dispatcher.nth(earlier);
  gone.abort();
  await assert.rejects(asking);
  if (!signal.aborted) await once(signal, 'abort');
});
