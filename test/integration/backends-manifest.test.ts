/** Backends by a status manifest, their keys and their addresses; and how a busy server is told from a dead one. */
import assert from 'node:assert/strict';
import dns from 'node:dns';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { HttpClient } from '../../node/backends/openai-http/http-client.ts';
import { isManifestFile, readManifest } from '../../node/backends/openai-http/manifest-source.ts';
import { systemClock } from '../../node/common/clock.ts';
import { probeHttpNode } from '../../node/node-probe.ts';
import {
  answerOf,
  type HttpNodesBench,
  httpNodesBench,
  server,
  settled,
  statusIs,
} from '../support/http-nodes-bench.ts';
import { json, type OpenAiServer, refusal, silent } from '../support/openai-server.ts';

const SECRET = 'sk-manifest-canary-0123456789';
const ENDPOINT = 'endpoint-canary-production';

const entryOf = (url: string, over: object = {}): object => ({
  status: 'Live',
  model: 'OpenAI GPT-4',
  description: 'An example',
  experts: ['gpt-4o', 'gpt-4o-mini'],
  url: `${url}/v1`,
  endpoint_id: ENDPOINT,
  ...over,
});

async function manifestFile({ dir }: HttpNodesBench, manifest: object | string): Promise<string> {
  const file = path.join(dir, 'status.json');
  await writeFile(file, typeof manifest === 'string' ? manifest : JSON.stringify(manifest));
  return file;
}

/** The next look at a manifest and at servers. */
async function later({ clock }: HttpNodesBench, ms = 1000): Promise<void> {
  await settled();
  clock.advance(ms);
}

test('F-18 F-14 a manifest file names servers: the live ones serve exactly its experts, each with the key of its endpoint_id', async (t) => {
  const bench = await httpNodesBench(t);
  const [one, two] = [await server(t), await server(t)];
  one.models = json(200, { data: [{ id: 'gpt-4o', max_model_len: 8192 }, { id: 'unlisted' }] });
  two.models = refusal(404, { message: 'no such route' });
  const manifest = await manifestFile(bench, {
    'openai-us-east': entryOf(one.url),
    'no description': entryOf(two.url, { experts: ['claude'], endpoint_id: 'other', description: undefined }),
    resting: entryOf(two.url, { status: 'Maintenance', experts: ['resting-model'] }),
    broken: { status: 'Live' },
  });
  const node = await bench.registry.add(null, { name: 'first', manifest });
  await bench.registry.setKey(node.fingerprint, JSON.stringify({ [ENDPOINT]: SECRET, unused: 'x' }));
  const list = await bench.when((views) => views.filter(({ status }) => status === 'online').length === 2);
  assert.deepEqual(
    list.map(({ name, status, problem }) => [name, status, problem]),
    [
      ['first/openai-us-east', 'online', null],
      ['first/no description', 'online', null],
      ['first/broken', 'offline', '"url" is missing'],
      ['first/resting', 'offline', 'its status manifest says Maintenance'],
    ],
  );
  assert.deepEqual(
    bench.nodes.models().map(({ entry }) => [entry.id, entry.contextLength]),
    [
      ['gpt-4o', 8192],
      ['gpt-4o-mini', 0],
      ['claude', 0],
    ],
  );
  assert.equal(bench.nodes.holders('gpt-4o')[0]?.place?.boundary, 'public');
  await answerOf(bench.nodes, 'gpt-4o', {});
  await answerOf(bench.nodes, 'claude', {});
  assert.equal(one.inferences[0]?.headers.authorization, `Bearer ${SECRET}`);
  assert.equal(two.inferences[0]?.headers.authorization, undefined, 'no key of its own, none at all');
  const shown = JSON.stringify([list, bench.nodes.models(), bench.log(), bench.registry.list()]);
  for (const hidden of [SECRET, ENDPOINT, new URL(one.url).host]) assert.equal(shown.includes(hidden), false, hidden);
});

test('F-43 two live entries of one model are two holders, and a manifest that changes is followed within a second', async (t) => {
  const bench = await httpNodesBench(t);
  const [one, two] = [await server(t), await server(t)];
  const both = { a: entryOf(one.url), b: entryOf(two.url) };
  const manifest = await manifestFile(bench, both);
  await bench.registry.add(null, { name: 'first', manifest, boundary: 'private-cluster', priority: 3, shared: true });
  await bench.when((views) => views.filter(({ status }) => status === 'online').length === 2);
  const holders = bench.nodes.holders('gpt-4o');
  assert.deepEqual(
    holders.map(({ backend, place, shared }) => [backend.id, place, shared]),
    [
      ['api:first:a', { priority: 3, boundary: 'private-cluster' }, true],
      ['api:first:b', { priority: 3, boundary: 'private-cluster' }, true],
    ],
  );
  await manifestFile(bench, { ...both, a: entryOf(one.url, { status: 'Stopped' }) });
  const changed = bench.when((views) => views.some(({ problem }) => problem?.includes('Stopped') === true));
  await later(bench);
  await changed;
  assert.deepEqual(
    bench.nodes.holders('gpt-4o').map(({ backend }) => backend.id),
    ['api:first:b'],
  );
});

test('F-18 a manifest that cannot be read any more keeps the last good one, and says so', async (t) => {
  // Polls of the servers themselves stay out of it.
  const bench = await httpNodesBench(t, { pollMs: 1e9 });
  const [source, one] = [await server(t), await server(t)];
  source.models = json(200, { a: entryOf(one.url) });
  await bench.registry.add(null, { name: 'first', manifest: `${source.url}/status.json?site=1` });
  await bench.when(statusIs('online'));
  assert.deepEqual([source.asked[0]?.path, source.asked[0]?.headers.authorization], ['/status.json?site=1', undefined]);
  for (const [waitMs, reply, problem] of [
    [60_000, json(200, 'not json'), /cannot be used: it is no JSON/],
    [1000, json(200, '[]'), /no JSON object/],
    [2000, refusal(500, {}), /answered 500/],
  ] as const) {
    source.models = reply;
    const said = bench.when((views) => problem.test(views[0]?.problem ?? ''));
    await later(bench, waitMs);
    const [view] = await said;
    assert.equal(view?.status, 'online');
    assert.equal(bench.nodes.holders('gpt-4o').length, 1);
  }
  source.models = json(200, {});
  const gone = bench.when((views) => views.length === 0);
  await later(bench, 4000);
  await gone;
  await bench.registry.remove('first');
});

test('F-18 with a URL a manifest counts for that server alone, so that no other gets its key', async (t) => {
  const bench = await httpNodesBench(t);
  const [one, two] = [await server(t), await server(t)];
  const manifest = await manifestFile(bench, { a: entryOf(one.url), b: entryOf(two.url) });
  const { fingerprint } = await bench.registry.add(one.url, { name: 'pinned', manifest });
  await bench.registry.setKey(fingerprint, SECRET);
  await bench.when(statusIs('online'));
  await answerOf(bench.nodes, 'gpt-4o', {});
  assert.equal(one.inferences[0]?.headers.authorization, `Bearer ${SECRET}`);
  assert.equal(two.asked.length, 0);
});

/** A server that redirects as told. */
async function redirecting(t: TestContext, location: string): Promise<string> {
  const http = createServer((_, response) => response.writeHead(302, { location }).end());
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  t.after(() => {
    http.close();
    http.closeAllConnections();
  });
  return `http://127.0.0.1:${(http.address() as AddressInfo).port}/status`;
}

const read = (manifest: string): Promise<string> =>
  readManifest({ clock: systemClock }, { manifest, signal: AbortSignal.timeout(5000) });

test('F-18 every redirect of a manifest is checked: none leads to a link-local or metadata address, or on for ever', async (t) => {
  const target = await server(t);
  target.models = json(200, '{}');
  assert.equal(await read(await redirecting(t, `${target.url}/elsewhere`)), '{}');
  const hops = await redirecting(t, await redirecting(t, await redirecting(t, target.url)));
  assert.equal(await read(hops), '{}', 'three are followed');
  await assert.rejects(read(await redirecting(t, hops)), { message: /redirects more than 3 times/ });
  for (const bad of [
    'http://169.254.169.254/latest/meta-data',
    'http://[::ffff:169.254.169.254]/',
    'http://[::ffff:a9fe:a9fe]/',
    'http://[64:ff9b::a9fe:a9fe]/',
    'http://[2002:a9fe:a9fe::1]/',
    'http://2852039166/',
    'http://0xa9.0xfe.0xa9.0xfe/',
    'http://metadata.google.internal/',
    'http://[fe80::1]/',
    'http://user:secret@127.0.0.1/',
    'file:///etc/passwd',
    'ftp://127.0.0.1/',
  ]) {
    await assert.rejects(read(await redirecting(t, bad)), { code: 'invalid_request', message: /not followed$/ }, bad);
  }
  assert.equal(isManifestFile('/a/b'), true);
});

test('F-18 a public manifest names no private server, neither by address nor by a name that leads there', async (t) => {
  const bench = await httpNodesBench(t);
  const inside = await server(t);
  const { port } = new URL(inside.url);
  const lookup = dns.lookup;
  const answers = new Map([
    ['manifest.example.com', '127.0.0.1'],
    ['inside.example.com', '127.0.0.1'],
    ['meta.example.com', '169.254.169.254'],
    ['mapped.example.com', '::ffff:169.254.169.254'],
  ]);
  t.mock.method(dns, 'lookup', (name: string, options: object, callback: (...given: unknown[]) => void) => {
    const address = answers.get(name);
    if (address === undefined) return lookup(name, options as dns.LookupAllOptions, callback as never);
    return callback(null, [{ address, family: address.includes(':') ? 6 : 4 }]);
  });
  const ask = (name: string, publicOnly: boolean) => {
    const client = new HttpClient({ clock: systemClock }, { name: 'box', url: `http://${name}:${port}`, publicOnly });
    t.after(() => client.destroy());
    const limits = { connectMs: 1000, headersMs: 1000, silenceMs: 1000 };
    return client.call({ method: 'GET', path: '/v1/models', headers: {} }, limits, AbortSignal.timeout(5000));
  };
  await assert.rejects(ask('inside.example.com', true), {
    message: 'box: its name points to a link-local, metadata or private address, which is not allowed',
  });
  for (const name of ['meta.example.com', 'mapped.example.com']) {
    for (const publicOnly of [true, false]) await assert.rejects(ask(name, publicOnly), { code: 'peer_unreachable' });
  }
  // What its owner typed may lead into his own network.
  const allowed = await ask('inside.example.com', false);
  assert.equal(allowed.status, 200);
  allowed.close();
  // The manifest itself is on the internet, so its own name may not lead inside.
  await bench.registry.add(null, { name: 'first', manifest: `http://manifest.example.com:${port}/status` });
  const [view] = await bench.when((views) => views[0]?.problem !== null && views.length > 0);
  assert.match(view?.problem ?? '', /private address, which is not allowed/);
});

test('F-18 backends test reads the manifest once and names what does not answer, without an address', async (t) => {
  const bench = await httpNodesBench(t);
  const [one, two] = [await server(t), await server(t)];
  two.models = refusal(401, {});
  const manifest = await manifestFile(bench, {
    a: entryOf(one.url),
    b: entryOf(two.url),
    c: entryOf(two.url, { status: 'Offline' }),
  });
  const node = await bench.registry.add(null, { name: 'first', manifest });
  const { ok, detail, models } = await probeHttpNode(node, SECRET);
  assert.equal(ok, true);
  assert.deepEqual(models, ['gpt-4o', 'gpt-4o-mini']);
  assert.match(
    detail,
    /^its manifest names 2 live servers with 2 models; first\/b: first\/b answered 401.*give it a key/,
  );
  assert.match(detail, /first\/c: its status manifest says Offline; the keys of a manifest are a JSON object/);
  assert.equal(detail.includes('127.0.0.1'), false);
  await writeFile(manifest, '{');
  assert.deepEqual(await probeHttpNode(node, null), { ok: false, detail: 'it is no JSON', models: [] });
});

const VLLM = { data: [{ id: 'm', owned_by: 'vllm' }] };
const metrics = (waiting: number): string =>
  `# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{model_name="m",engine="0"} ${waiting}.0\n`;

/** A server that also has `/metrics`. */
function withMetrics(one: OpenAiServer, text: () => string): void {
  one.models = (response, asked) =>
    asked.path === '/metrics' ? void response.writeHead(200).end(text()) : json(200, VLLM)(response, asked);
}

test('F-4 a vLLM server in which requests wait is busy, chosen after others, and looked at again in 5 s', async (t) => {
  const bench = await httpNodesBench(t);
  const one = await server(t);
  let waiting = 3;
  withMetrics(one, () => metrics(waiting));
  await bench.registry.add(one.url);
  await bench.when(statusIs('busy'));
  assert.equal(bench.nodes.holders('m')[0]?.suspect, true);
  waiting = 0;
  const free = bench.when(statusIs('online'));
  await later(bench, 5000);
  await free;
  assert.equal(bench.nodes.holders('m')[0]?.suspect, false);
});

test('F-4 a server that says 429, or 503 with Retry-After, or that it loads, is busy and keeps its models; others are down', async (t) => {
  for (const reply of [
    refusal(429, {}, { 'retry-after': '9' }),
    refusal(503, { message: 'later' }, { 'retry-after': '9' }),
    refusal(503, { message: 'Loading model', type: 'unavailable_error' }),
  ]) {
    const bench = await httpNodesBench(t);
    const one = await server(t);
    await bench.registry.add(one.url);
    await bench.when(statusIs('online'));
    one.models = reply;
    const busy = bench.when(statusIs('busy'));
    await later(bench, 30_000);
    await busy;
    assert.equal(bench.nodes.holders('m').length, 1);
  }
  const bench = await httpNodesBench(t);
  const one = await server(t);
  await bench.registry.add(one.url);
  await bench.when(statusIs('online'));
  one.models = refusal(503, { message: 'no backend' });
  const suspect = bench.when(statusIs('suspect'));
  await later(bench, 30_000);
  await suspect;
});

test('F-4 a server that lets a poll wait while it answers us is busy, one that does nothing else is suspect', async (t) => {
  const bench = await httpNodesBench(t);
  const one = await server(t);
  await bench.registry.add(one.url);
  await bench.when(statusIs('online'));
  one.reply = silent;
  one.models = silent;
  const [holder] = bench.nodes.holders('m');
  assert.ok(holder);
  const leave = new AbortController();
  const request = { requestId: '0'.repeat(32), kind: 'chat', model: 'm', body: Buffer.from('{}'), seed: 1 } as const;
  const asking = holder.backend.infer(request, { signal: leave.signal })[Symbol.asyncIterator]().next();
  asking.catch(() => {});
  for (const [status, pollMs] of [
    ['busy', 30_000],
    ['suspect', 5000],
  ] as const) {
    const polls = one.asked.length;
    await later(bench, pollMs);
    while (one.asked.length === polls) await settled();
    await settled();
    const changed = bench.when(statusIs(status));
    bench.clock.advance(10_000);
    await changed;
    leave.abort();
    await asking.catch(() => {});
  }
});
