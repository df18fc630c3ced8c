/** What a careless or hostile client may send over a real socket; after each, the next good request is answered. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, afterEach, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { MeshError } from '../../node/common/errors.ts';
import { openSocket, type RawAnswer, rawRequest, readAnswer } from '../support/raw-http.ts';
import { answering, failing } from '../support/scripted-backend.ts';
import { type ScriptedFacade, startFacade } from '../support/scripted-facade.ts';

const MESSAGES = [{ role: 'user', content: 'hi' }];
const CONTEXT_MESSAGE =
  "This model's maximum context length is 2048 tokens. However, your messages resulted in 5000 tokens.";

let scripted: ScriptedFacade;
let dispatchedBefore = 0;

before(async () => {
  const limits = { headersTimeoutMs: 300, requestTimeoutMs: 300, timeoutCheckMs: 50, bodyLimitBytes: 64 * 1024 };
  scripted = await startFacade(
    {
      m: answering(3),
      small: failing(new MeshError('context_length_exceeded', CONTEXT_MESSAGE, { param: 'messages' })),
      busy: failing(new MeshError('overloaded', 'The queue is full.', { retryAfterMs: 1200 })),
    },
    { ...limits, allowOrigins: ['https://chat.example'] },
  );
});
after(() => scripted.stop());

/** The next request works. */
afterEach(async () => {
  const response = await post({ model: 'm', messages: MESSAGES });
  assert.equal(response.status, 200);
  await response.arrayBuffer();
});

function post(
  body: object | string,
  headers: Record<string, string> = {},
  path = '/v1/chat/completions',
): Promise<Response> {
  const text = typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body);
  return fetch(scripted.url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: text,
  });
}

interface ErrorJson {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string;
  };
}

/** Asserts status and code of an error in OpenAI's dialect and returns its fields. */
async function assertError(response: Response, status: number, code: string): Promise<ErrorJson['error']> {
  const text = await response.text();
  assert.equal(response.status, status, text);
  const { error } = JSON.parse(text) as ErrorJson;
  assert.deepEqual(Object.keys(error).sort(), ['code', 'message', 'param', 'type']);
  assert.equal(error.code, code);
  assert.ok(error.message.length > 0);
  assert.ok(response.headers.get('x-request-id'));
  return error;
}

function raw(head: string[], body = ''): Promise<RawAnswer> {
  return rawRequest(scripted.port, `${head.join('\r\n')}\r\n\r\n${body}`);
}

const good = (): string => JSON.stringify({ model: 'm', messages: MESSAGES });

function rawPost(headers: readonly string[], body = good()): Promise<RawAnswer> {
  const head = ['POST /v1/chat/completions HTTP/1.1', ...headers, `Content-Length: ${Buffer.byteLength(body)}`];
  return raw([...head, 'Connection: close'], body);
}

describe('a body that is not what it should be', () => {
  for (const text of [
    '{',
    '{"model":"m",}',
    'nonsense',
    '{"model":"m"',
    "{'model':'m'}",
    '"text"',
    '[]',
    'null',
    '42',
    '\0',
  ]) {
    it(`is refused with 400: ${JSON.stringify(text)}`, async () => {
      await assertError(await post(text), 400, 'invalid_request');
    });
  }

  it('is refused with 400 when it is empty', async () => {
    await assertError(await post(''), 400, 'invalid_request');
    const answer = await raw([
      'POST /v1/chat/completions HTTP/1.1',
      `Host: localhost:${scripted.port}`,
      'Content-Type: application/json',
      'Connection: close',
    ]);
    assert.equal(answer.status, 400);
  });

  it('is refused with 400 when it is not UTF-8', async () => {
    await assertError(
      await post(Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a, 0x31, 0x7d])),
      400,
      'invalid_request',
    );
  });

  it('may begin with a byte order mark or is refused with 400', async () => {
    const response = await post(`\ufeff${good()}`);
    assert.ok(response.status === 200 || response.status === 400);
    await response.arrayBuffer();
  });

  it('is refused with 400 when a key is __proto__, however written', async () => {
    for (const key of ['__proto__', '\\u005f_proto__']) {
      await assertError(
        await post(`{"model":"m","messages":[{"role":"user","content":"x"}],"${key}":{"polluted":1}}`),
        400,
        'invalid_request',
      );
    }
    assert.equal(({} as { polluted?: number }).polluted, undefined);
  });

  it('is refused with 400 when it nests too deep', async () => {
    await assertError(await post(`{"model":"m","messages":${'['.repeat(30_000)}`), 400, 'invalid_request');
    await assertError(await post(`{"model":"m","x":${'{"a":'.repeat(80)}1${'}'.repeat(80)}}`), 400, 'invalid_request');
  });
});

describe('a field of the wrong kind is refused with 400 that names it', () => {
  const rows: readonly [string, object][] = [
    ['model', { model: 7 }],
    ['model', { model: undefined }],
    ['messages', { messages: 'hi' }],
    ['messages', { messages: [] }],
    ['messages', { messages: undefined }],
    ['messages[0].role', { messages: [{ role: 'robot', content: 'x' }] }],
    ['messages[0].content', { messages: [{ role: 'user', content: 7 }] }],
    ['temperature', { temperature: 'hot' }],
    ['temperature', { temperature: -1 }],
    ['temperature', { temperature: 99 }],
    ['top_p', { top_p: 1.5 }],
    ['max_tokens', { max_tokens: -1 }],
    ['max_tokens', { max_tokens: 0 }],
    ['max_tokens', { max_tokens: 1e12 }],
    ['max_tokens', { max_tokens: 1.5 }],
    ['max_tokens', { max_tokens: '5' }],
    ['stream', { stream: 'true' }],
    ['n', { n: 1000 }],
    ['seed', { seed: 1.5 }],
    ['stop[0]', { stop: [1] }],
  ];
  for (const [param, fields] of rows) {
    it(`${param}: ${JSON.stringify(fields)}`, async () => {
      const error = await assertError(
        await post({ model: 'm', messages: MESSAGES, ...fields }),
        400,
        'invalid_request',
      );
      assert.equal(error.param, param);
    });
  }

  it('a number too large for JSON: temperature 1e400', async () => {
    const text = `{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":1e400}`;
    assert.equal((await assertError(await post(text), 400, 'invalid_request')).param, 'temperature');
  });

  it('prompt of a completion', async () => {
    const error = await assertError(
      await post({ model: 'm', prompt: 5 }, {}, '/v1/completions'),
      400,
      'invalid_request',
    );
    assert.equal(error.param, 'prompt');
  });
});

describe('fields beyond the schema', () => {
  it('are ignored when unknown, and absent when null', async () => {
    const fields = {
      made_up: { a: 1 },
      temperature: null,
      max_tokens: null,
      stream: null,
      stop: null,
      stream_options: null,
    };
    const response = await post({ model: 'm', messages: MESSAGES, ...fields });
    assert.equal(response.status, 200);
    await response.arrayBuffer();
  });

  it('reach the dispatcher byte for byte', async () => {
    const text = `{ "made_up":1.50,"model":"m",  "messages":[{"role":"user","content":"\\u0068i"}]}`;
    await (await post(text)).arrayBuffer();
    assert.equal(Buffer.from(scripted.dispatcher.dispatched.at(-1)?.request.body ?? []).toString(), text);
  });
});

describe('a request that no model can answer', () => {
  for (const stream of [false, true]) {
    const how = stream ? 'streamed' : 'whole';
    it(`gets 503 model_not_available that is not worth a retry, ${how}`, async () => {
      const response = await post({ model: 'nowhere', messages: MESSAGES, stream });
      assert.equal(response.headers.get('x-should-retry'), 'false');
      assert.equal(response.headers.get('content-type'), 'application/json; charset=utf-8');
      await assertError(response, 503, 'model_not_available');
    });

    it(`gets 400 context_length_exceeded that names both numbers, ${how}`, async () => {
      const error = await assertError(
        await post({ model: 'small', messages: MESSAGES, stream }),
        400,
        'context_length_exceeded',
      );
      assert.equal(error.message, CONTEXT_MESSAGE);
      assert.equal(error.type, 'invalid_request_error');
    });

    it(`gets 429 with Retry-After in whole seconds, rounded up, ${how}`, async () => {
      const response = await post({ model: 'busy', messages: MESSAGES, stream });
      assert.equal(response.headers.get('retry-after'), '2');
      await assertError(response, 429, 'overloaded');
    });
  }
});

describe('a body that is too large', () => {
  it('gets 413 when its length says so', async () => {
    await assertError(
      await post({ model: 'm', messages: [{ role: 'user', content: 'x'.repeat(70_000) }] }),
      413,
      'payload_too_large',
    );
  });

  it('is read to its end, so that its client can read the answer and go on', async () => {
    const socket = await openSocket(scripted.port);
    const head = `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:${scripted.port}\r\nContent-Type: application/json`;
    socket.write(`${head}\r\nContent-Length: 70000\r\n\r\n`);
    const [refusal] = (await once(socket, 'data')) as [Buffer];
    assert.match(refusal.toString(), /^HTTP\/1\.1 413 /);
    socket.write('x'.repeat(70_000));
    socket.write(`GET /v1/models HTTP/1.1\r\nHost: localhost:${scripted.port}\r\nConnection: close\r\n\r\n`);
    assert.equal((await readAnswer(socket)).status, 200);
  });

  it('gets 413 when it comes without a length', async () => {
    const stream = new ReadableStream({
      start(controller) {
        for (let i = 0; i < 10; i += 1) controller.enqueue(Buffer.alloc(10_000, 0x20));
        controller.close();
      },
    });
    const response = await fetch(`${scripted.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: stream,
      duplex: 'half',
    } as RequestInit);
    await assertError(response, 413, 'payload_too_large');
  });
});

describe('a content type that is not JSON gets 415', () => {
  const refused = [
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/json;x',
    'application/json\t; charset=utf-8',
    'application/json ; charset=utf-8',
    'application/json; charset=utf-16',
    'application/jsonx',
    'application/json,text/plain',
    'text/plain;application/json',
    'application/ld+json',
  ];
  for (const type of refused) {
    it(JSON.stringify(type), async () => {
      const answer = await rawPost([`Host: localhost:${scripted.port}`, `Content-Type: ${type}`]);
      assert.equal(answer.status, 415, answer.body);
      assert.match(answer.body, /"code":"unsupported_media_type"/);
    });
  }
  it('none at all, two, and an encoded body', async () => {
    const host = `Host: localhost:${scripted.port}`;
    const json = 'Content-Type: application/json';
    for (const headers of [[host], [host, json, json], [host, json, 'Content-Encoding: gzip']]) {
      assert.equal((await rawPost(headers)).status, 415);
    }
  });
});

describe('a request for another host gets 403 before its body is read', () => {
  const refused = [
    'evil.example',
    'evil.example:PORT',
    'localhost',
    '127.0.0.1',
    'localhost:1',
    'localhost.:PORT',
    'node.local:PORT',
    '127.0.0.1.nip.io:PORT',
    '0.0.0.0:PORT',
    'localhost:PORT.evil.example',
    '',
  ];
  for (const host of refused) {
    it(`Host: ${host}`, async () => {
      const value = host.replace('PORT', String(scripted.port));
      // No body follows the length: the answer comes without it.
      const answer = await raw([
        'POST /v1/chat/completions HTTP/1.1',
        `Host: ${value}`,
        'X-Forwarded-Host: localhost',
        'Content-Type: application/json',
        'Content-Length: 1000',
        'Connection: close',
      ]);
      assert.equal(answer.status, 403, answer.body);
      assert.match(answer.body, /"code":"forbidden"/);
    });
  }

  it('no Host, two Hosts, an absolute-form target', async () => {
    const host = `Host: localhost:${scripted.port}`;
    const last = 'Connection: close';
    assert.equal((await raw(['GET /v1/models HTTP/1.1', last])).status, 403);
    assert.equal((await raw(['GET /v1/models HTTP/1.0', last])).status, 403);
    assert.equal((await raw(['GET /v1/models HTTP/1.1', host, host, last])).status, 403);
    assert.equal((await raw(['GET /v1/models HTTP/1.1', host, 'Host: evil.example', last])).status, 403);
    assert.equal((await raw([`GET http://evil.example/v1/models HTTP/1.1`, host, last])).status, 403);
    assert.equal((await raw([`GET http://localhost:${scripted.port}/v1/models HTTP/1.1`, host, last])).status, 403);
  });

  for (const host of ['localhost:PORT', '127.0.0.1:PORT', '[::1]:PORT', 'LocalHost:PORT']) {
    it(`but ${host} is us`, async () => {
      const value = host.replace('PORT', String(scripted.port));
      assert.equal((await raw(['GET /v1/models HTTP/1.1', `Host: ${value}`, 'Connection: close'])).status, 200);
    });
  }
});

describe('a web page of another origin', () => {
  for (const origin of [
    'https://evil.example',
    'null',
    'http://localhost:3000',
    'https://localhost:PORT',
    'http://localhost:PORT.evil.example',
  ]) {
    it(`gets 403: ${origin}`, async () => {
      const response = await post(good(), { origin: origin.replace('PORT', String(scripted.port)) });
      assert.equal(response.headers.get('access-control-allow-origin'), null);
      await assertError(response, 403, 'forbidden');
    });
  }

  it('gets 403 for what its browser marks as cross-site, even a GET', async () => {
    const answer = await raw([
      'GET /v1/models HTTP/1.1',
      `Host: localhost:${scripted.port}`,
      'Sec-Fetch-Site: cross-site',
      'Connection: close',
    ]);
    assert.equal(answer.status, 403);
  });

  it('gets no preflight', async () => {
    const headers = { origin: 'https://evil.example', 'access-control-request-method': 'POST' };
    const response = await fetch(`${scripted.url}/v1/chat/completions`, { method: 'OPTIONS', headers });
    assert.equal(response.headers.get('access-control-allow-methods'), null);
    await assertError(response, 403, 'forbidden');
  });

  it('may ask and read when its origin is allowed', async () => {
    const origin = 'https://chat.example';
    const asked = 'authorization, content-type, x-stainless-os, x-evil';
    const preflight = await fetch(`${scripted.url}/v1/chat/completions`, {
      method: 'OPTIONS',
      headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': asked },
    });
    assert.equal(preflight.status, 204);
    assert.equal(preflight.headers.get('access-control-allow-origin'), origin);
    assert.equal(preflight.headers.get('access-control-allow-headers'), 'authorization, content-type, x-stainless-os');
    for (const stream of [false, true]) {
      const response = await post(
        { model: 'm', messages: MESSAGES, stream },
        { origin, 'sec-fetch-site': 'cross-site' },
      );
      assert.equal(response.status, 200);
      assert.equal(response.headers.get('access-control-allow-origin'), origin);
      await response.arrayBuffer();
    }
  });

  it('is our own when it has one of our names', async () => {
    const response = await post(good(), { origin: `http://localhost:${scripted.port}` });
    assert.equal(response.status, 200);
    await response.arrayBuffer();
  });
});

describe('a path or method that does not exist', () => {
  it('gets 404 that names the base URL', async () => {
    const error = await assertError(await fetch(`${scripted.url}/chat/completions`), 404, 'not_found');
    assert.ok(error.message.includes(`${scripted.url}/v1`));
    await assertError(await post('x', { 'content-type': 'text/plain' }, '/nowhere'), 404, 'not_found');
  });

  it('gets 405 with the methods that do', async () => {
    const get = await fetch(`${scripted.url}/v1/chat/completions`);
    assert.equal(get.headers.get('allow'), 'POST');
    await assertError(get, 405, 'method_not_allowed');
    const del = await fetch(`${scripted.url}/v1/models/m`, { method: 'DELETE' });
    assert.match(del.headers.get('allow') ?? '', /GET/);
    await assertError(del, 405, 'method_not_allowed');
  });

  it('gets 400 when it cannot be decoded', async () => {
    await assertError(await fetch(`${scripted.url}/v1/models/%zz`), 400, 'invalid_request');
  });
});

describe('a connection that is no client', () => {
  it('gets 408 for headers that drip', async () => {
    const socket = await openSocket(scripted.port);
    socket.write('POST /v1/chat/completions HTTP/1.1\r\nHost: local');
    assert.equal((await readAnswer(socket)).status, 408);
  });

  it('gets 408 for a body that drips', async () => {
    const socket = await openSocket(scripted.port);
    socket.write(
      `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:${scripted.port}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{`,
    );
    const drip = setInterval(() => socket.write(' '), 50);
    const answer = await readAnswer(socket);
    clearInterval(drip);
    assert.equal(answer.status, 408);
    assert.match(answer.body, /"code":"request_timeout"/);
  });

  it('gets 400 for bytes that are not HTTP', async () => {
    assert.equal((await rawRequest(scripted.port, 'hello\r\n\r\n')).status, 400);
    assert.equal(
      (await rawRequest(scripted.port, Buffer.from([0x16, 0x03, 0x01, 0x00, 0xf4, 0x01, 0x00]))).status,
      400,
    );
  });

  const smuggled: readonly [string, string[]][] = [
    ['a length and chunks', ['Content-Length: 5', 'Transfer-Encoding: chunked']],
    ['two lengths', ['Content-Length: 5', 'Content-Length: 6']],
    ['a length that is no number', ['Content-Length: 5x']],
  ];
  for (const [what, headers] of smuggled) {
    it(`gets 400 for ${what}`, async () => {
      const host = `Host: localhost:${scripted.port}`;
      const head = ['POST /v1/chat/completions HTTP/1.1', host, 'Content-Type: application/json', ...headers];
      assert.equal((await raw(head, '0\r\n\r\n')).status, 400);
    });
  }

  it('gets 400 or 431 for headers without end', async () => {
    const answer = await raw(['GET / HTTP/1.1', `Host: localhost:${scripted.port}`, `X-A: ${'a'.repeat(100_000)}`]);
    assert.ok(answer.status === 400 || answer.status === 431 || answer.status === 0);
  });

  it('may go away in the middle of its request', async () => {
    const socket = await openSocket(scripted.port);
    socket.write(
      `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:${scripted.port}\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{`,
    );
    socket.resetAndDestroy();
    await delay(0);
  });
});

describe('refused requests', () => {
  before(() => {
    dispatchedBefore = scripted.dispatcher.dispatched.length;
  });
  it('never reach the dispatcher', async () => {
    await (await post('{')).arrayBuffer();
    await (await post(good(), { origin: 'https://evil.example' })).arrayBuffer();
    await (await post(good(), { 'content-type': 'text/plain' })).arrayBuffer();
    assert.equal(scripted.dispatcher.dispatched.length, dispatchedBefore);
  });
});
