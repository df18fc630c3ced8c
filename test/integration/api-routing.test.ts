/** Routing as HTTP clients see and steer it: settings, boundary, hops, records, service states, pool views. */
import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import type { FacadeComponents, PeerRoutingStats, PeerStatus } from '../../node/api/components.ts';
import { MeshError } from '../../node/common/errors.ts';
import type { RequestRecord } from '../../node/routing/request-record.ts';
import { RoutingStats } from '../../node/routing/routing-stats.ts';
import { ServiceState } from '../../node/routing/service-state.ts';
import { DEFAULT_LOAD_BALANCING, type LoadBalancing } from '../../node/routing/settings.ts';
import fc from '../support/fc.ts';
import { answering, failing, saying } from '../support/scripted-backend.ts';
import {
  catalogEntry,
  OTHER_NODE,
  peerStatus,
  type ScriptedFacade,
  startFacade as startScripted,
} from '../support/scripted-facade.ts';

const LB = '/api/v1/config/load-balancing';
const LIMITS = { failureThreshold: 3, resetTimeoutSecs: 60 };

/** Stopped after each test, however it ends. */
const running: ScriptedFacade[] = [];
afterEach(async () => {
  for (const facade of running.splice(0)) await facade.stop();
});

async function startFacade(...args: Parameters<typeof startScripted>): Promise<ScriptedFacade> {
  const facade = await startScripted(...args);
  running.push(facade);
  return facade;
}

/** The fields that are asserted here, of all bodies together: each route has its own. */
interface Body {
  readonly error: { readonly code: string; readonly message: string; readonly param: string | null };
  readonly data: readonly { readonly id: string; readonly owned_by: string }[];
  readonly models: { readonly remote: number };
  readonly distributed: Readonly<Record<string, unknown>>;
  readonly endpoints: readonly Readonly<Record<string, unknown>>[];
  readonly nodes: readonly PeerRoutingStats[];
  readonly totalRequests: number;
  readonly totalSuccesses: number;
  readonly totalFailures: number;
  readonly choices: readonly { readonly message: { readonly content: string } }[];
  readonly [field: string]: unknown;
}

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Body;
}

async function call(from: ScriptedFacade, method: string, path: string, body?: object | string): Promise<Answer> {
  const response = await fetch(from.url + path, {
    method,
    ...(body !== undefined && {
      headers: { 'content-type': 'application/json' },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    }),
  });
  return { status: response.status, headers: response.headers, body: (await response.json()) as Body };
}

async function chat(from: ScriptedFacade, headers: Record<string, string> = {}, fields: object = {}): Promise<Answer> {
  const response = await fetch(`${from.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'hi' }], ...fields }),
  });
  return { status: response.status, headers: response.headers, body: (await response.json()) as Body };
}

/** A facade whose load balancing can be changed. */
async function settable(): Promise<{ facade: ScriptedFacade; now: () => LoadBalancing; calls: object[] }> {
  let current = DEFAULT_LOAD_BALANCING;
  const calls: object[] = [];
  const facade = await startFacade(
    { m: answering(2) },
    {},
    {
      loadBalancing: () => ({ ...current, ...LIMITS }),
      setLoadBalancing: (patch) => {
        calls.push(patch);
        current = { ...current, ...patch };
      },
    },
  );
  return { facade, now: () => current, calls };
}

describe('load balancing over HTTP', () => {
  it('D-15 D-22 D-23 is read and changed by part, at once', async () => {
    const { facade, now } = await settable();
    const all = { enabled: true, strategy: 'least-loaded', failoverEnabled: true, midStream: true, ...LIMITS };
    assert.deepEqual((await call(facade, 'GET', LB)).body, all);
    const changed = await call(facade, 'PUT', LB, { strategy: 'priority' });
    assert.deepEqual([changed.status, changed.body], [200, { ...all, strategy: 'priority' }]);
    await call(facade, 'PUT', LB, { failoverEnabled: false });
    assert.deepEqual(now(), { enabled: true, strategy: 'priority', failoverEnabled: false, midStream: true });
    assert.equal((await call(facade, 'GET', '/api/v1/inference/status')).body.distributed.strategy, 'priority');
    const back = (await call(facade, 'GET', LB)).body as object;
    assert.equal((await call(facade, 'PUT', LB, back)).status, 200, 'what was read may be sent back');
  });

  it('D-10 D-15 refuses what is not valid with 400, the four names where it is the strategy, and changes nothing', async () => {
    const { facade, now, calls } = await settable();
    const rows: readonly (readonly [object | string, string, RegExp])[] = [
      [{ strategy: 'random' }, 'strategy', /"random": expected priority, round-robin, least-loaded, fastest/],
      [{ enabled: false, strategy: null }, 'strategy', /priority, round-robin/],
      [{ strategy: 'priority', enabled: 'yes' }, 'enabled', /expected true or false/],
      [{ failoverEnabled: 1 }, 'failoverEnabled', /expected true or false/],
      [{ failover: true }, 'failover', /no field "failover".*failoverEnabled/],
      [{ failureThreshold: 5 }, 'failureThreshold', /is 3 and cannot be changed/],
      [{ resetTimeoutSecs: 1 }, 'resetTimeoutSecs', /is 60 and cannot be changed/],
    ];
    for (const [body, param, message] of rows) {
      const answer = await call(facade, 'PUT', LB, body);
      assert.equal(answer.status, 400, JSON.stringify(body));
      assert.equal(answer.body.error.param, param);
      assert.match(answer.body.error.message, message);
    }
    for (const text of ['[]', '{', 'null', '"x"', '{"__proto__":{}}', `{"strategy":"${'x'.repeat(70_000)}"}`])
      assert.ok([400, 413].includes((await call(facade, 'PUT', LB, text)).status));
    assert.deepEqual([now(), calls], [DEFAULT_LOAD_BALANCING, []]);
  });

  it('D-15 shows the error of a node that cannot change it, and a method that it does not take', async () => {
    const stuck = await startFacade(
      {},
      {},
      {
        setLoadBalancing: () => {
          throw new MeshError('internal_error', 'the disk is full');
        },
      },
    );
    const answer = await call(stuck, 'PUT', LB, { strategy: 'fastest' });
    assert.deepEqual([answer.status, answer.body.error.message], [500, 'the disk is full']);
    assert.equal((await call(stuck, 'DELETE', LB)).headers.get('allow'), 'GET, HEAD, PUT');
  });

  it('D-2 D-32 D-49 off: no distributed field, empty pool lists, and only the models here', async () => {
    const off = await startFacade(
      { m: answering(1) },
      {},
      { loadBalancing: () => ({ enabled: false, strategy: 'priority', ...LIMITS }) },
    );
    const status = (await call(off, 'GET', '/api/v1/inference/status')).body;
    assert.equal('distributed' in status, false);
    assert.deepEqual((await call(off, 'GET', '/api/v1/pool/distributed-status')).body, {
      enabled: false,
      strategy: 'priority',
      totalNodes: 0,
      onlineNodes: 0,
      models: [],
      endpoints: [],
    });
    const ids = (await call(off, 'GET', '/v1/models')).body.data.map(({ id }) => id);
    assert.deepEqual(ids, ['m']);
    assert.equal((await call(off, 'GET', '/health')).body.models.remote, 0);
    const nowhere = await chat(off, {}, { model: 'far/model' });
    assert.deepEqual([nowhere.status, nowhere.body.error.code], [503, 'model_not_available']);
  });
});

describe('the boundary of a request', () => {
  it('travels to the dispatcher as the client set it, and is absent when it set none', async () => {
    const facade = await startFacade({ m: answering(2) });
    for (const boundary of ['local', 'mesh', 'private-cluster', 'public']) {
      assert.equal((await chat(facade, { 'x-meshnode-boundary': boundary })).status, 200);
      assert.equal(facade.dispatcher.dispatched.at(-1)?.request.boundary, boundary);
    }
    await chat(facade);
    assert.equal('boundary' in (facade.dispatcher.dispatched.at(-1)?.request ?? {}), false);
  });

  it('that cannot be read is refused with 400 that names header and values, before anything is dispatched', async () => {
    const facade = await startFacade({ m: answering(2) });
    for (const value of ['lokal', 'LOCAL', '', 'local, public', 'mesh;q=1']) {
      const { status, body } = await chat(facade, { 'x-meshnode-boundary': value });
      assert.deepEqual([status, body.error.param], [400, 'x-meshnode-boundary'], value);
      assert.match(body.error.message, /x-meshnode-boundary must be one of local, mesh, private-cluster, public/);
    }
    assert.equal(facade.dispatcher.dispatched.length, 0);
  });

  it('D-8 is local for a request that another node sent on, whatever it says; a second hop is refused', async () => {
    const facade = await startFacade({ m: answering(2) });
    await chat(facade, { 'x-meshnode-hops': '1', 'x-meshnode-boundary': 'public' });
    assert.equal(facade.dispatcher.dispatched.at(-1)?.request.boundary, 'local');
    await chat(facade, { 'x-meshnode-hops': '0' });
    assert.equal(facade.dispatcher.dispatched.at(-1)?.request.boundary, undefined);
    for (const hops of ['2', '99', '-1', 'one', '', '1, 1', '0x1']) {
      const { status, body } = await chat(facade, { 'x-meshnode-hops': hops });
      assert.deepEqual([status, body.error.param], [400, 'x-meshnode-hops'], hops);
    }
    assert.equal(facade.dispatcher.dispatched.length, 2);
  });
});

describe('the record of a request', () => {
  const record: RequestRecord = {
    requestId: 'a'.repeat(32),
    label: 'trace/7 ä?',
    kind: 'chat',
    model: 'm',
    stream: false,
    boundary: 'public',
    strategy: 'fastest',
    startedAt: 1_760_000_000_000,
    durationMs: 12,
    candidates: [],
    attempts: [],
    outcome: 'ok',
  };

  it('is found by the id that the client saw, slashes and all, and is a 404 otherwise', async () => {
    const asked: string[] = [];
    const requestRecord: FacadeComponents['requestRecord'] = (id) => {
      asked.push(id);
      return id === record.label ? record : null;
    };
    const facade = await startFacade({ m: answering(2) }, {}, { requestRecord });
    const found = await call(facade, 'GET', `/api/v1/requests/${encodeURIComponent(record.label)}`);
    assert.deepEqual([found.status, found.body], [200, record]);
    const missing = await call(facade, 'GET', '/api/v1/requests/nope');
    assert.deepEqual([missing.status, missing.body.error.code], [404, 'not_found']);
    assert.deepEqual(asked, [record.label, 'nope']);
  });

  it('is kept under the x-request-id that the client sees', async () => {
    const labels: (string | undefined)[] = [];
    const facade = await startFacade({ m: answering(2) });
    const dispatch = facade.dispatcher.dispatch.bind(facade.dispatcher);
    facade.dispatcher.dispatch = (request, options) => {
      labels.push(options.label);
      return dispatch(request, options);
    };
    await chat(facade, { 'x-request-id': 'trace-7' });
    const { headers } = await chat(facade);
    assert.deepEqual(labels, ['trace-7', headers.get('x-request-id')]);
  });
});

describe('drain, pause and resume', () => {
  const served = async (): Promise<{ facade: ScriptedFacade; service: ServiceState }> => {
    const service = new ServiceState();
    return { service, facade: await startFacade({ m: answering(2) }, {}, { service }) };
  };

  it('while drained inference gets 503 with a time to come back and the state stays readable, until resumed', async () => {
    const { facade } = await served();
    assert.deepEqual((await call(facade, 'POST', '/api/v1/node/drain', {})).body, { state: 'draining' });
    const refused = await chat(facade);
    assert.deepEqual([refused.status, refused.body.error.code], [503, 'draining']);
    assert.ok(Number(refused.headers.get('retry-after')) > 0);
    assert.match(refused.body.error.message, /meshnode resume/);
    assert.equal((await call(facade, 'GET', '/health')).status, 503);
    const node = (await call(facade, 'GET', '/api/v1/node')).body;
    assert.deepEqual([node.draining, node.state], [true, 'draining']);
    assert.equal((await call(facade, 'GET', '/v1/models')).status, 200);
    assert.deepEqual((await call(facade, 'POST', '/api/v1/node/resume', {})).body, { state: 'open' });
    assert.equal((await chat(facade)).status, 200);
  });

  it('while paused own clients go on', async () => {
    const { facade } = await served();
    assert.deepEqual((await call(facade, 'POST', '/api/v1/node/pause', {})).body, { state: 'paused' });
    assert.equal((await chat(facade)).status, 200);
    assert.equal((await call(facade, 'GET', '/health')).status, 200);
    assert.equal((await call(facade, 'GET', '/api/v1/node')).body.state, 'paused');
  });

  it('cannot be sent by a web page, nor without a JSON content type, nor undo a shutdown', async () => {
    const { facade, service } = await served();
    const url = `${facade.url}/api/v1/node/drain`;
    const json = { 'content-type': 'application/json' };
    assert.equal((await fetch(url, { method: 'POST' })).status, 415);
    assert.equal(
      (await fetch(url, { method: 'POST', headers: { ...json, origin: 'https://evil.example' } })).status,
      403,
    );
    assert.equal((await call(facade, 'GET', '/api/v1/node/drain')).status, 405);
    assert.equal(service.mode, 'open');
    service.close();
    assert.equal((await call(facade, 'POST', '/api/v1/node/resume', {})).status, 503);
  });
});

describe('the pool with nodes of several kinds', () => {
  const http = (over: Partial<PeerStatus> = {}): PeerStatus =>
    peerStatus({
      fingerprint: 'api:box',
      name: 'box',
      kind: 'http',
      url: 'http://192.0.2.9:8000',
      status: 'unauthorized',
      latencyMs: null,
      load: null,
      models: [],
      hasKey: true,
      ...over,
    });

  it('D-33 D-37 D-38 D-39 D-40 D-41 D-46 shows HTTP nodes beside peers, with their URL and never a key', async () => {
    const leaky = http({ fingerprint: 'api:leaky', url: 'http://user:KEY-CANARY@192.0.2.10:8000' });
    const remoteModels = () => [
      { fingerprint: OTHER_NODE, entry: catalogEntry('far/model') },
      { fingerprint: 'api:box', entry: catalogEntry('far/model') },
      { fingerprint: 'api:box', entry: catalogEntry('other') },
    ];
    const facade = await startFacade({}, {}, { peers: () => [peerStatus(), http(), leaky], remoteModels });
    const { body } = await call(facade, 'GET', '/api/v1/pool/distributed-status');
    assert.deepEqual([body.totalNodes, body.onlineNodes], [3, 1]);
    assert.deepEqual(
      (body.endpoints as Record<string, unknown>[]).map((node) => [
        node['fingerprint'],
        node['baseUrl'],
        node['status'],
      ]),
      [
        [OTHER_NODE, `libp2p://${OTHER_NODE}`, 'online'],
        ['api:box', 'http://192.0.2.9:8000', 'unauthorized'],
        ['api:leaky', 'http://192.0.2.10:8000/', 'unauthorized'],
      ],
    );
    assert.deepEqual(body.models, [
      { id: 'far/model', availableOn: [OTHER_NODE, 'api:box'] },
      { id: 'other', availableOn: ['api:box'] },
    ]);
    const { distributed } = (await call(facade, 'GET', '/api/v1/inference/status')).body;
    assert.equal(distributed.remoteModels, 2);
    for (const path of ['/api/v1/peers', '/api/v1/pool/distributed-status'])
      assert.doesNotMatch(JSON.stringify((await call(facade, 'GET', path)).body), /CANARY/, path);
  });

  it('D-31 D-35 N-2 lists models of every kind of node alike, local before remote, under both prefixes', async () => {
    const remoteModels = () => [
      { fingerprint: OTHER_NODE, entry: catalogEntry('m') },
      { fingerprint: 'api:box', entry: catalogEntry('other') },
    ];
    const facade = await startFacade({ m: answering(1) }, {}, { remoteModels });
    for (const path of ['/v1/models', '/api/v1/inference/models']) {
      const { data } = (await call(facade, 'GET', path)).body;
      assert.deepEqual(
        data.map(({ id, owned_by }) => [id, owned_by]),
        [
          ['m', 'llama.cpp'],
          ['other', 'remote'],
        ],
      );
    }
    const url = `${facade.url}/api/v1/inference/chat/completions`;
    const headers = { 'content-type': 'application/json' };
    const body = JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'hi' }] });
    const answer = await fetch(url, { method: 'POST', headers, body });
    assert.equal(answer.status, 200);
    await answer.arrayBuffer();
  });

  it('D-34 D-42 statistics keep their invariants over any history: totals are sums, nobody counts twice', async () => {
    const outcomes = fc.array(
      fc.record({ node: fc.nat(3), outcome: fc.constantFrom('success', 'failure', 'neutral', 'running') }),
      { maxLength: 40 },
    );
    await fc.assert(
      fc.asyncProperty(outcomes, async (history) => {
        const stats = new RoutingStats();
        const nodes = ['a', 'b', 'c', 'd'];
        for (const { node, outcome } of history) {
          const done = stats.begin(nodes[node] ?? '');
          if (outcome !== 'running') done(outcome as 'success', 5);
          if (outcome !== 'running') done('failure', null);
        }
        const routingStats = (): PeerRoutingStats[] =>
          nodes.map((fingerprint) => ({
            ...stats.of(fingerprint),
            fingerprint,
            circuitOpen: false,
            consecutiveFailures: 0,
          }));
        const facade = await startFacade({}, {}, { routingStats });
        const { body } = await call(facade, 'GET', '/api/v1/pool/routing-stats');
        await facade.stop();
        const listed = body.nodes as PeerRoutingStats[];
        const sum = (of: (node: PeerRoutingStats) => number): number => listed.reduce((n, node) => n + of(node), 0);
        assert.equal(
          body.totalRequests,
          sum((node) => node.totalRequests),
        );
        assert.equal(
          body.totalSuccesses,
          sum((node) => node.successCount),
        );
        assert.equal(
          body.totalFailures,
          sum((node) => node.failureCount),
        );
        assert.equal(body.totalRequests, history.length);
        for (const node of listed)
          assert.ok(node.successCount + node.failureCount + node.activeRequests <= node.totalRequests);
        assert.deepEqual(body.circuitBreaker, LIMITS);
      }),
      { numRuns: 10 },
    );
  });

  it('D-43 D-44 inference status tells the port that listens and counts what is loaded', async () => {
    const localModels = () => [catalogEntry('a'), catalogEntry('b', { state: 'on-disk' })];
    const facade = await startFacade({}, {}, { localModels });
    const { body } = await call(facade, 'GET', '/api/v1/inference/status');
    assert.deepEqual(
      [body.available, body.routerRunning, body.routerPort, body.loadedModels, body.llmModels, body.diffusionModels],
      [true, true, facade.port, 1, 1, 0],
    );
  });
});

describe('answers through the routing layer', () => {
  it('D-7 carry nothing of it in their bodies, only in x-meshnode headers', async () => {
    const facade = await startFacade({ m: saying(['Hello']) });
    const { body, headers } = await chat(facade);
    assert.deepEqual([body.object, body.model, body.choices[0]?.message.content], ['chat.completion', 'm', 'Hello']);
    assert.doesNotMatch(JSON.stringify(body), /meshnode|12D3/);
    assert.equal(headers.get('x-meshnode-attempts'), '1');
  });

  it('D-52 for a model that nobody has are 503 and not 404', async () => {
    const facade = await startFacade({ m: answering(1) });
    const { status, body, headers } = await chat(facade, {}, { model: 'nowhere' });
    assert.deepEqual([status, body.error.code, body.error.param], [503, 'model_not_available', 'model']);
    assert.equal(headers.get('x-should-retry'), 'false');
  });

  it('say so when trying again makes no sense', async () => {
    const spent = new MeshError('peer_unreachable', 'It went away; the retry budget is spent.', { retryable: false });
    const facade = await startFacade({ m: failing(spent) });
    const { status, headers } = await chat(facade);
    assert.deepEqual([status, headers.get('x-should-retry')], [502, 'false']);
  });

  it('D-27 need a body within 16 MiB: more is 413', async () => {
    const facade = await startFacade({ m: answering(1) });
    const content = 'x'.repeat(16 * 1024 * 1024);
    const { status, body } = await chat(facade, {}, { messages: [{ role: 'user', content }] });
    assert.deepEqual([status, body.error.code], [413, 'payload_too_large']);
  });
});
