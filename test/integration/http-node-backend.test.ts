import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { OpenAiHttpLimits } from '../../node/backends/openai-http/openai-exchange.ts';
import { OpenAiHttpBackend } from '../../node/backends/openai-http/openai-http.ts';
import { systemClock } from '../../node/common/clock.ts';
import { type ErrorCode, MeshError } from '../../node/common/errors.ts';
import type { InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import {
  DONE,
  delta,
  json,
  OpenAiServer,
  opened,
  type Reply,
  raw,
  refusal,
  reset,
  silent,
  sse,
  streamed,
} from '../support/openai-server.ts';

const KEY = 'sk-canary-0123456789';

interface Bench {
  readonly server: OpenAiServer;
  readonly backend: OpenAiHttpBackend;
  ask(reply: Reply, options?: AskOptions): Promise<InferenceEvent[]>;
  fails(reply: Reply, options?: AskOptions): Promise<MeshError>;
}

interface AskOptions {
  readonly body?: object | string;
  readonly kind?: InferenceRequest['kind'];
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: InferenceEvent) => void;
}

const STREAMED = { model: 'm', stream: true, messages: [] };

async function bench(t: TestContext, limits: Partial<OpenAiHttpLimits> = {}): Promise<Bench> {
  const server = await OpenAiServer.start();
  const backend = new OpenAiHttpBackend(
    { clock: systemClock, key: () => KEY },
    { fingerprint: 'api:box', name: 'box', url: server.url, limits },
  );
  t.after(async () => {
    backend.close();
    await server.stop();
  });
  const ask: Bench['ask'] = async (reply, { body = STREAMED, kind = 'chat', signal, onEvent } = {}) => {
    server.reply = reply;
    const bytes = Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));
    const request = { requestId: '0'.repeat(32), kind, model: 'm', body: bytes, seed: 1 };
    const events: InferenceEvent[] = [];
    for await (const event of backend.infer(request, { signal: signal ?? new AbortController().signal })) {
      events.push(event);
      onEvent?.(event);
    }
    return events;
  };
  return {
    server,
    backend,
    ask,
    fails: async (reply, options) => {
      const error = await ask(reply, options).then(
        () => null,
        (thrown: unknown) => thrown,
      );
      assert.ok(error instanceof MeshError, 'fails with a MeshError');
      assert.equal(
        JSON.stringify([error.message, error.stack, error.facts, error.cause ?? null]).includes('canary'),
        false,
      );
      return error;
    },
  };
}

const textOf = (events: readonly InferenceEvent[]): string =>
  events.map((event) => (event.type === 'chunk' ? event.text : '')).join('');

test('D-6 D-46 the body travels byte for byte, the key in the Authorization header and nowhere else', async (t) => {
  const { server, ask } = await bench(t);
  const body = '{ "model":"m","stream":true , "unknown_field": [1e2], "messages":[] }';
  const events = await ask(streamed(['Hel', 'lo']), { body });
  const [asked] = server.inferences;
  assert.equal(asked?.body, body);
  assert.equal(asked?.path, '/v1/chat/completions');
  const { authorization, ...others } = asked?.headers ?? {};
  assert.equal(authorization, `Bearer ${KEY}`);
  assert.equal(others['x-meshnode-hops'], '1');
  assert.equal(JSON.stringify([others, asked?.path, asked?.body]).includes('canary'), false);
  assert.deepEqual(events[0], { type: 'accepted', node: 'api:box', promptTokens: 0, promptDigest: '', artifact: null });
  assert.equal(textOf(events), 'Hello');
  const end = events.at(-1);
  assert.ok(end?.type === 'end');
  assert.deepEqual(end.finishReasons, ['stop']);
  assert.deepEqual(end.usage, { promptTokens: 7, completionTokens: 2, cachedTokens: 3 });
});

test('an answer that is not streamed is one chunk and its end', async (t) => {
  const { server, ask } = await bench(t);
  const usage = { prompt_tokens: 4, completion_tokens: 2 };
  const chat = { choices: [{ index: 0, message: { role: 'assistant', content: 'Hi' }, finish_reason: 'stop' }], usage };
  const events = await ask(json(200, chat), { body: { model: 'm', messages: [] } });
  assert.deepEqual(
    events.map((event) => event.type),
    ['accepted', 'chunk', 'end'],
  );
  assert.equal(textOf(events), 'Hi');
  const completion = { choices: [{ index: 0, text: 'there', finish_reason: 'length' }] };
  assert.equal(
    textOf(await ask(json(200, completion), { body: { model: 'm', prompt: 'x' }, kind: 'completion' })),
    'there',
  );
  assert.equal(server.inferences.at(-1)?.path, '/v1/completions');
});

test('connections are kept from one request to the next, also after streams', async (t) => {
  const { ask } = await bench(t);
  const ports = new Set<number | undefined>();
  for (let i = 0; i < 8; i += 1) {
    await ask((response, asked) => {
      ports.add(response.socket?.remotePort);
      return streamed(['x'])(response, asked);
    });
  }
  // The end of an answer is told before its connection is free again, so two take turns.
  assert.ok(ports.size <= 2, `${ports.size} connections`);
});

test('D-6 every misbehaviour of a server is an error of the table, never a whole answer', async (t) => {
  const { fails } = await bench(t, { silenceMs: 300, headersMs: 300 });
  const hi = delta('Hi');
  const rows: readonly (readonly [string, Reply, ErrorCode])[] = [
    ['500', refusal(500, { message: 'boom' }), 'upstream_error'],
    ['503', refusal(503, { message: 'boom' }), 'upstream_error'],
    ['429', refusal(429, { message: 'slow' }, { 'retry-after': '3' }), 'rate_limited'],
    ['401', refusal(401, { message: `Incorrect API key ${KEY}` }), 'unauthorized'],
    ['403', refusal(403, { message: `not with ${KEY}` }), 'forbidden'],
    ['400 that repeats the key', refusal(400, { message: `Bearer ${KEY}?` }), 'invalid_request'],
    ['unknown model', refusal(404, { message: 'x', code: 'model_not_found' }), 'model_not_loaded'],
    ['reset before headers', reset(), 'peer_unreachable'],
    ['reset mid-stream', reset([hi, delta(' you')]), 'peer_unreachable'],
    ['silence before headers', silent, 'peer_unreachable'],
    ['silence mid-stream', opened([hi]), 'peer_unreachable'],
    ['no finish_reason, clean end', raw([hi]), 'upstream_error'],
    ['no finish_reason, [DONE]', raw([hi, DONE]), 'upstream_error'],
    ['an empty stream', raw([]), 'upstream_error'],
    ['an event that is no JSON', raw([hi, 'data: {"choices": [\n\n', delta(null, 'stop')]), 'upstream_error'],
    ['an error in band', raw([hi, sse({ error: { message: 'boom', code: 500 } })]), 'upstream_error'],
    ['an error event', raw([hi, 'event: error\ndata: {"message":"boom"}\n\n']), 'upstream_error'],
    ['tool calls', raw([delta(null, null, { choices: [{ delta: { tool_calls: [{}] } }] })]), 'upstream_error'],
    ['a giant line', raw([`data: ${'x'.repeat(5 * 1024 * 1024)}`]), 'upstream_error'],
    ['HTML', (response) => void response.writeHead(200, { 'content-type': 'text/html' }).end('<p>'), 'upstream_error'],
    ['no HTTP', (response) => void response.socket?.end('garbage\r\n\r\n'), 'upstream_error'],
    ['half a JSON body', json(200, '{"choices": [{"message": {"content": "Hi"'), 'upstream_error'],
    ['a JSON body cut by a reset', json(200, 'x', { 'content-length': '100' }), 'peer_unreachable'],
  ];
  for (const [name, reply, code] of rows) {
    const isReset = name === 'a JSON body cut by a reset';
    const cut: Reply = async (response, asked) => {
      await reply(response, asked);
      response.socket?.destroy();
    };
    const error = await fails(isReset ? cut : reply);
    assert.equal(error.code, code, `${name}: ${error.message}`);
  }
});

test('D-20 a 429 passes on when to try again, given in seconds or as a date', async (t) => {
  const { backend, fails, ask } = await bench(t);
  const inSeconds = await fails(refusal(429, {}, { 'retry-after': '3' }));
  assert.equal(inSeconds.facts.retryAfterMs, 3000);
  const date = new Date(Date.now() + 30_000).toUTCString();
  const waitMs = (await fails(refusal(429, {}, { 'retry-after': date }))).facts.retryAfterMs ?? 0;
  assert.ok(waitMs > 0 && waitMs <= 30_000);
  await backend.poll(AbortSignal.timeout(5000));
  assert.equal(backend.status, 'busy');
  await ask(streamed(['x']));
  assert.equal(backend.status, 'online');
});

test('a redirect is not followed, wherever it leads', async (t) => {
  const { server, fails } = await bench(t);
  for (const location of ['http://169.254.169.254/latest/', `${server.url}/elsewhere`]) {
    const asked = server.asked.length;
    const error = await fails(json(307, '', { location }));
    assert.equal(error.code, 'upstream_error');
    assert.match(error.message, /redirect/);
    assert.equal(server.asked.length, asked + 1);
  }
});

test('what follows the finish reason is only counts: a server that breaks off there has cut nothing', async (t) => {
  const { ask } = await bench(t, { tailMs: 100 });
  const pieces = [delta('Hi'), delta(null, 'stop')];
  for (const reply of [raw(pieces), opened(pieces), reset(pieces)]) {
    const events = await ask(reply);
    assert.equal(textOf(events), 'Hi');
    assert.equal(events.at(-1)?.type, 'end');
  }
});

test('an abort destroys the socket at once, before the headers as well as within a stream', async (t) => {
  const { server, fails } = await bench(t);
  for (const reply of [silent, opened([delta('Hi')])]) {
    const client = new AbortController();
    const closed = server.nextClosed();
    const failing = fails(
      async (response, asked) => {
        await reply(response, asked);
        if (reply === silent) client.abort(new MeshError('client_closed', 'gone'));
      },
      { signal: client.signal, onEvent: (event) => event.type === 'chunk' && client.abort() },
    );
    assert.equal((await failing).code, 'client_closed');
    await closed;
  }
});

test('leaving the iteration closes the connection', async (t) => {
  const { server, backend } = await bench(t);
  server.reply = opened([delta('Hi')]);
  const closed = server.nextClosed();
  const body = Buffer.from(JSON.stringify(STREAMED));
  const request = { requestId: '0'.repeat(32), kind: 'chat', model: 'm', body, seed: 1 } as const;
  for await (const event of backend.infer(request, { signal: new AbortController().signal })) {
    if (event.type === 'chunk') break;
  }
  await closed;
  assert.equal(backend.status, 'offline', 'no verdict on a server whose client left');
});

test('a client that reads slowly slows the server down', async (t) => {
  const { server, backend } = await bench(t);
  let written = 0;
  let isFull: () => void = () => {};
  const full = new Promise<void>((resolve) => {
    isFull = resolve;
  });
  server.reply = async (response, asked) => {
    await opened([delta('start')])(response, asked);
    const piece = delta('x'.repeat(64 * 1024));
    while (!response.destroyed && written < 512 && response.write(piece)) written += 1;
    isFull();
  };
  const body = Buffer.from(JSON.stringify(STREAMED));
  const request = { requestId: '0'.repeat(32), kind: 'chat', model: 'm', body, seed: 1 } as const;
  for await (const event of backend.infer(request, { signal: new AbortController().signal })) {
    if (event.type !== 'chunk') continue;
    await full;
    break;
  }
  assert.ok(written < 512, 'the server was made to wait');
});

test('a server that is not there is unreachable within the bound', async (t) => {
  const { server, fails } = await bench(t);
  await server.stop();
  const error = await fails(silent);
  assert.equal(error.code, 'peer_unreachable');
  assert.match(error.message, /^box cannot be reached \(ECONNREFUSED\)$/);
});

test('a kept connection that the server closed meanwhile is replaced without an error', async (t) => {
  const { server, backend, ask } = await bench(t);
  await backend.poll(AbortSignal.timeout(5000));
  let isFirst = true;
  const events = await ask((response, asked) => {
    if (!isFirst) return streamed(['fresh'])(response, asked);
    isFirst = false;
    return reset()(response, asked);
  });
  assert.equal(textOf(events), 'fresh');
  assert.equal(server.inferences.length, 2);
});

test('an API that is not below /v1 is asked where it is, for its models and for answers', async (t) => {
  const server = await OpenAiServer.start();
  const options = { fingerprint: 'direct:a', name: 'a', url: `${server.url}/api/paas`, apiPath: '/v4' };
  const backend = new OpenAiHttpBackend({ clock: systemClock, key: () => null }, options);
  t.after(async () => {
    backend.close();
    await server.stop();
  });
  const { signal } = new AbortController();
  await backend.poll(signal);
  server.reply = streamed(['Hi']);
  const body = Buffer.from(JSON.stringify(STREAMED));
  const request = { requestId: '0'.repeat(32), kind: 'chat', model: 'm', body, seed: 1 } as const;
  const events: InferenceEvent[] = [];
  for await (const event of backend.infer(request, { signal })) events.push(event);
  assert.equal(events.at(-1)?.type, 'end');
  assert.deepEqual(
    server.asked.map(({ path }) => path),
    ['/api/paas/v4/models', '/api/paas/v4/chat/completions'],
  );
});
