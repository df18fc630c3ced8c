/** The facade's own endpoints, headers, and how it starts, drains and stops. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import type { MeshError } from '../../node/common/errors.ts';
import { createLogger } from '../../node/common/logger.ts';
import { openSocket, readAnswer } from '../support/raw-http.ts';
import { accepted, answering, chunk, end, hanging, type Script } from '../support/scripted-backend.ts';
import { catalogEntry, OTHER_NODE, peerStatus, type ScriptedFacade, startFacade } from '../support/scripted-facade.ts';

let scripted: ScriptedFacade;
before(async () => {
  scripted = await startFacade({ m: answering(3) });
});
after(() => scripted.stop());

async function getJson(path: string, from = scripted): Promise<{ status: number; body: unknown }> {
  const response = await fetch(from.url + path);
  return { status: response.status, body: await response.json() };
}

function chat(from: ScriptedFacade, fields: object, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(`${from.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'hi' }], ...fields }),
  });
}

describe('the endpoints of the pool', () => {
  it('status has the fixed fields', async () => {
    assert.deepEqual(await getJson('/api/v1/inference/status'), {
      status: 200,
      body: {
        available: true,
        routerRunning: true,
        routerPort: scripted.port,
        loadedModels: 1,
        llmModels: 1,
        diffusionModels: 0,
        distributed: { enabled: true, strategy: 'least-loaded', totalNodes: 1, onlineNodes: 1, remoteModels: 1 },
      },
    });
  });

  it('status has no distributed field while load balancing is off', async () => {
    const off = () => ({ enabled: false, strategy: 'priority', failureThreshold: 3, resetTimeoutSecs: 60 });
    const local = await startFacade({ m: answering(1) }, {}, { loadBalancing: off });
    const { body } = await getJson('/api/v1/inference/status', local);
    assert.equal('distributed' in (body as object), false);
    await local.stop();
  });

  it('distributed-status has the fixed fields', async () => {
    const { body } = await getJson('/api/v1/pool/distributed-status');
    assert.deepEqual(body, {
      enabled: true,
      strategy: 'least-loaded',
      totalNodes: 1,
      onlineNodes: 1,
      models: [{ id: 'far/model', availableOn: [OTHER_NODE] }],
      endpoints: [
        {
          fingerprint: OTHER_NODE,
          baseUrl: `libp2p://${OTHER_NODE}`,
          status: 'online',
          latencyMs: 12,
          loadedModelCount: 1,
          priority: 5,
          name: 'other',
        },
      ],
    });
  });

  it('routing-stats has the fixed fields, and its totals are sums', async () => {
    const { body } = await getJson('/api/v1/pool/routing-stats');
    assert.deepEqual(body, {
      nodes: [
        {
          fingerprint: OTHER_NODE,
          totalRequests: 150,
          successCount: 147,
          failureCount: 3,
          avgLatencyMs: 42.5,
          activeRequests: 2,
          circuitOpen: false,
          consecutiveFailures: 0,
        },
      ],
      totalRequests: 150,
      totalSuccesses: 147,
      totalFailures: 3,
      circuitBreaker: { failureThreshold: 3, resetTimeoutSecs: 60 },
    });
  });

  it('models list each id once, local before remote', async () => {
    const remote = ['m', 'far/model', 'far/model'].map((id, n) => ({
      fingerprint: `peer${n}`,
      entry: catalogEntry(id, { state: n === 1 ? 'on-disk' : 'resident', contextLength: 4096 }),
    }));
    const both = await startFacade({ m: answering(1) }, {}, { remoteModels: () => remote });
    const { body } = await getJson('/api/v1/inference/models', both);
    const { data } = body as { data: { id: string; owned_by: string; meshnode: { nodes: string[]; state: string } }[] };
    assert.deepEqual(
      data.map(({ id, owned_by, meshnode }) => [id, owned_by, meshnode.nodes, meshnode.state]),
      [
        ['m', 'llama.cpp', ['12D3KooWHere', 'peer0'], 'resident'],
        ['far/model', 'remote', ['peer1', 'peer2'], 'resident'],
      ],
    );
    await both.stop();
  });
});

describe('the endpoints of the node', () => {
  it('tell who it is and what it sees', async () => {
    const node = (await getJson('/api/v1/node')).body as { name: string; api: string; models: { id: string }[] };
    assert.equal(node.name, 'here');
    assert.equal(node.api, scripted.url);
    assert.deepEqual(
      node.models.map(({ id }) => id),
      ['m'],
    );
    assert.deepEqual((await getJson('/api/v1/peers')).body, { peers: [JSON.parse(JSON.stringify(peerStatus()))] });
    assert.equal(((await getJson('/')).body as { api: string }).api, `${scripted.url}/v1`);
  });

  it('are healthy while there is a model here or on a peer', async () => {
    assert.equal((await getJson('/health')).status, 200);
    const empty = await startFacade({}, {}, { remoteModels: () => [] });
    assert.equal((await getJson('/health', empty)).status, 503);
    await empty.stop();
    assert.equal((await fetch(`${scripted.url}/health`, { method: 'HEAD' })).status, 200);
  });

  it('count answers by status in the metrics', async () => {
    await (await chat(scripted, {})).arrayBuffer();
    await (await chat(scripted, { model: 'nowhere' })).arrayBuffer();
    const text = await (await fetch(`${scripted.url}/metrics`)).text();
    assert.match(text, /meshnode_http_requests_total\{status="2xx"\} \d+/);
    assert.match(text, /meshnode_http_requests_total\{status="5xx"\} \d+/);
  });
});

describe('the id of a request', () => {
  it("is the client's own when it is sane", async () => {
    const response = await chat(scripted, {}, { 'x-request-id': 'trace-7' });
    assert.equal(response.headers.get('x-request-id'), 'trace-7');
    const { id } = (await response.json()) as { id: string };
    assert.match(id, /^chatcmpl-[0-9a-f]{32}$/);
  });

  it('is ours when it is not', async () => {
    for (const given of ['two words', 'x'.repeat(129), 'ümlaut']) {
      const response = await chat(scripted, {}, { 'x-request-id': given });
      assert.match(response.headers.get('x-request-id') ?? '', /^req_[0-9a-f]{32}$/);
      await response.arrayBuffer();
    }
  });

  it('differs for requests that name the same', async () => {
    const ids = [1, 2].map(
      async () => ((await (await chat(scripted, {}, { 'x-request-id': 'same' })).json()) as { id: string }).id,
    );
    assert.equal(new Set(await Promise.all(ids)).size, 2);
  });
});

describe('a body within the limit', () => {
  it('reaches the dispatcher whole at 15 MiB; one past 16 MiB gets 413', async () => {
    const content = 'x'.repeat(15 * 1024 * 1024);
    const response = await chat(scripted, { messages: [{ role: 'user', content }] });
    assert.equal(response.status, 200);
    await response.arrayBuffer();
    const body = scripted.dispatcher.dispatched.at(-1)?.request.body;
    assert.ok(body !== undefined && Buffer.from(body).includes(content));
    const tooLarge = await chat(scripted, { messages: [{ role: 'user', content: 'x'.repeat(17 * 1024 * 1024) }] });
    assert.equal(tooLarge.status, 413);
    await tooLarge.arrayBuffer();
  });
});

describe('secrets', () => {
  it('appear neither in logs at the finest level, nor in errors', async () => {
    const lines: string[] = [];
    const logger = createLogger('trace', { write: (line) => void lines.push(line) });
    const failing: Script = async function* () {
      yield accepted();
      throw new TypeError('internal detail');
    };
    const keyed = await startFacade({ m: answering(3), failing }, { apiKey: 'KEY-CANARY' }, { logger });
    const messages = [{ role: 'user', content: 'PROMPT-CANARY' }];
    let answers = '';
    for (const authorization of ['Bearer KEY-CANARY', 'Bearer WRONG-CANARY', 'Bearer  KEY-CANARY x']) {
      for (const fields of [{}, { stream: true }, { model: 'failing' }, { model: 'nowhere' }, { temperature: 'x' }]) {
        const response = await chat(keyed, { messages, ...fields }, { authorization });
        answers += await response.text();
      }
    }
    await keyed.stop();
    const log = lines.join('');
    assert.match(log, /"status":401/);
    assert.match(log, /internal detail/);
    assert.doesNotMatch(log, /CANARY/);
    assert.doesNotMatch(answers, /CANARY|internal detail/);
    assert.match(answers, /"code":"internal_error"/);
  });
});

describe('a slow client', () => {
  it('holds the dispatcher back, and loses its answer when it reads nothing', async () => {
    let produced = 0;
    const endless: Script = async function* () {
      yield accepted();
      for (; ; produced += 1) yield chunk('x'.repeat(1000), produced);
    };
    const slow = await startFacade({ m: endless }, { drainMs: 100 });
    const socket = await openSocket(slow.port);
    const body = JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'x' }], stream: true });
    const head = `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:${slow.port}\r\nContent-Type: application/json`;
    socket.write(`${head}\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    const { signal } = await slow.dispatcher.nth(0);
    if (!signal.aborted) await once(signal, 'abort');
    assert.ok(produced < 50_000, `${produced} chunks were produced for nobody`);
    assert.equal((signal.reason as MeshError).code, 'client_closed');
    socket.destroy();
    await slow.stop();
  });

  it('leaves status and other streams usable', async () => {
    const endless: Script = async function* () {
      yield accepted();
      for (let i = 0; ; i += 1) yield chunk('x', i);
    };
    const busy = await startFacade({ endless, m: answering(3) });
    const abort = new AbortController();
    const streams = [1, 2, 3].map(async () => {
      const response = await fetch(`${busy.url}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'endless', messages: [{ role: 'user', content: 'x' }], stream: true }),
        signal: abort.signal,
      });
      for await (const _ of response.body ?? []);
    });
    assert.equal((await getJson('/health', busy)).status, 200);
    assert.equal((await chat(busy, {})).status, 200);
    abort.abort();
    await Promise.allSettled(streams);
    await busy.stop();
  });
});

describe('starting', () => {
  it('says which port is taken and what to do', async () => {
    await assert.rejects(startFacade({}, { port: scripted.port }), (error: MeshError) => {
      assert.equal(error.code, 'invalid_request');
      assert.match(error.message, new RegExp(`Port ${scripted.port} .*--port`));
      return true;
    });
    await assert.rejects(startFacade({}, { host: '203.0.113.1' }), /--host/);
  });

  it('works again after a stop, and both are idempotent', async () => {
    const again = await startFacade({ m: answering(1) });
    await again.facade.start();
    await again.stop();
    await again.stop();
    await again.facade.start();
    assert.equal((await fetch(`${again.facade.address()}/health`)).status, 200);
    await again.stop();
    await assert.rejects(fetch(`${again.facade.address()}/health`));
  });
});

describe('draining and stopping', () => {
  it('refuses new work with 503 and a time to come back, and still tells its state', async () => {
    const draining = await startFacade({ m: answering(1) });
    draining.facade.drain();
    const response = await chat(draining, {});
    assert.equal(response.status, 503);
    assert.equal(response.headers.get('retry-after'), '2');
    assert.equal(response.headers.get('connection'), 'close');
    assert.equal(((await response.json()) as { error: { code: string } }).error.code, 'draining');
    assert.equal(((await getJson('/api/v1/node', draining)).body as { draining: boolean }).draining, true);
    assert.equal((await getJson('/health', draining)).status, 503);
    await draining.stop();
  });

  it('lets a running answer finish', async () => {
    let finish: () => void = () => {};
    const released = new Promise<void>((resolve) => (finish = resolve));
    const slow: Script = async function* () {
      yield accepted();
      yield chunk('first');
      await released;
      yield chunk('last', 1);
      yield end(2);
    };
    const stopping = await startFacade({ m: slow });
    const response = await chat(stopping, { stream: true });
    const controller = new AbortController();
    const stopped = stopping.facade.stop(controller.signal);
    finish();
    const text = await response.text();
    assert.match(text, /"content":"last"/);
    assert.ok(text.endsWith('data: [DONE]\n\n'));
    await stopped;
  });

  it('ends a running stream with an error event, and a waiting request with 503, when its time is up', async () => {
    const stopping = await startFacade({ m: hanging(2), silent: hanging(0) });
    const response = await chat(stopping, { stream: true });
    const waiting = chat(stopping, { model: 'silent' });
    await stopping.dispatcher.nth(1);
    const controller = new AbortController();
    const stopped = stopping.facade.stop(controller.signal);
    controller.abort();
    const text = await response.text();
    assert.match(text, /data: \{"error":\{[^\n]*"code":"draining"/);
    assert.equal(text.includes('[DONE]'), false);
    const refused = await waiting;
    assert.equal(refused.status, 503);
    await refused.arrayBuffer();
    await stopped;
  });

  it('does not wait for idle or half-open connections', async () => {
    const stopping = await startFacade({ m: answering(1) });
    const socket = await openSocket(stopping.port);
    socket.write('POST /v1/chat/completions HTTP/1.1\r\nHost:');
    await (await chat(stopping, {})).arrayBuffer();
    await stopping.facade.stop(AbortSignal.timeout(10_000));
    await readAnswer(socket);
  });
});
