/** Backends that are lent to other nodes: two whole nodes, a real HTTP server behind one of them, a real mesh hop between. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { openNodeRegistry } from '../../node/storage/node-registry.ts';
import type { RemoteNodePatch } from '../../node/storage/remote-node.ts';
import { Canaries } from '../support/canaries.ts';
import { usable, type WholeNode, wholeNode } from '../support/mesh-node-pair.ts';
import { json, OpenAiServer, raw, refusal, streamed } from '../support/openai-server.ts';

const KEY = 'sk-shared+canary/6Hb=nM1~';

interface Pair {
  /** Has the server behind it. */
  readonly owner: WholeNode;
  readonly asker: WholeNode;
  readonly server: OpenAiServer;
  lend(patch: RemoteNodePatch): Promise<void>;
}

async function pair(t: TestContext): Promise<Pair> {
  const server = await OpenAiServer.start();
  t.after(() => server.stop());
  server.models = json(200, { data: [{ id: 'far-model' }] });
  const owner = await wholeNode(t, { models: ['own'] });
  const asker = await wholeNode(t, { flags: { peer: [owner.address] } });
  await usable(asker, ['own']);
  const lend = async (patch: RemoteNodePatch): Promise<void> => {
    const registry = await openNodeRegistry(owner.dataDir);
    const { fingerprint } = await registry.add(server.url, { name: 'lent', ...patch });
    await registry.setKey(fingerprint, KEY);
    // A running node takes it over by itself.
    await usable(owner, ['own', 'far-model']);
  };
  return { owner, asker, server, lend };
}

test('F-5 a backend without --share is for this node alone: peers neither see it nor reach it', async (t) => {
  const { owner, asker, server, lend } = await pair(t);
  await lend({});
  assert.equal((await owner.chat('far-model')).status, 200);
  assert.equal(server.inferences.length, 1);
  await usable(asker, ['own']);
  assert.equal((await asker.chat('far-model')).status, 503);
  assert.equal(server.inferences.length, 1);
});

test('F-5 F-8 a shared backend answers a peer over one hop, with its key, and the peer learns neither key nor address', async (t) => {
  const { owner, asker, server, lend } = await pair(t);
  await lend({ shared: true });
  await usable(asker, ['own', 'far-model']);
  const whole = await asker.chat('far-model');
  assert.equal(whole.status, 200, whole.text);
  assert.equal(
    whole.headers.get('x-meshnode-node'),
    owner.fingerprint,
    'the node that is asked is the one that answers',
  );
  const streamedAnswer = await asker.chat('far-model', { stream: true });
  assert.match(streamedAnswer.text, /Hello/);
  assert.match(streamedAnswer.text, /\[DONE\]/);
  assert.deepEqual(
    server.inferences.map(({ headers }) => headers.authorization),
    [`Bearer ${KEY}`, `Bearer ${KEY}`],
  );
  // Every way in which the server fails: its words, its name and its address stay with its owner.
  const url = new URL(server.url);
  const said = [whole.text, streamedAnswer.text];
  for (const [status, expected] of [
    [400, 400],
    [401, 503],
    [500, 500],
  ] as const) {
    server.reply = refusal(status, { message: `${KEY} is no key for ${url.host}` });
    const { status: seen, text } = await asker.chat('far-model');
    assert.equal(seen, expected, text);
    said.push(text);
    // What a 401 leaves behind wears off slowly: the next row begins anew.
    if (status === 401) {
      const registry = await openNodeRegistry(owner.dataDir);
      await registry.setKey('api:lent', `${KEY}2`);
      await usable(asker, ['own', 'far-model']);
    }
  }
  said.push(JSON.stringify(await asker.get('/v1/models')), JSON.stringify(await asker.get('/api/v1/peers')));
  said.push(JSON.stringify(asker.events), await (await fetch(`${asker.api}/metrics`)).text());
  const canaries = new Canaries();
  canaries.add('key', KEY);
  canaries.add('address', url.host);
  assert.deepEqual(canaries.findIn(said.join('\n')), []);
  assert.equal(said.join('\n').includes('lent'), false);
});

test('C-16 F-8 a request that must stay in the mesh never reaches a public backend of a peer', async (t) => {
  const { asker, server, lend } = await pair(t);
  await lend({ shared: true, boundary: 'public' });
  await usable(asker, ['own', 'far-model']);
  for (const boundary of ['local', 'mesh', 'private-cluster']) {
    const { status } = await asker.chat('far-model', { headers: { 'x-meshnode-boundary': boundary } });
    assert.equal(status, 503, boundary);
  }
  assert.equal(server.inferences.length, 0);
  assert.equal((await asker.chat('far-model', { headers: { 'x-meshnode-boundary': 'public' } })).status, 200);
  assert.equal((await asker.chat('far-model')).status, 200);
  assert.equal(server.inferences.length, 2);
});

test('F-16 several shared backends of one model fail over behind the peer, which sees one answer', async (t) => {
  const { owner, asker, server, lend } = await pair(t);
  const second = await OpenAiServer.start();
  t.after(() => second.stop());
  second.models = server.models;
  server.reply = raw(['data: nonsense\n\n']);
  await lend({ shared: true, priority: 9 });
  const registry = await openNodeRegistry(owner.dataDir);
  await registry.add(second.url, { name: 'second', shared: true });
  second.reply = streamed(['second ', 'answer']);
  while (second.asked.length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
  for (let i = 0; i < 4; i += 1) assert.match((await asker.chat('far-model', { stream: true })).text, /second /);
  assert.equal((await asker.chat('own')).status, 200, 'the engine of the owner is blamed for nothing');
});

test('D-8 a request makes one hop between nodes: what a peer lends to us is not lent on', async (t) => {
  const { owner, asker, lend } = await pair(t);
  const third = await wholeNode(t, { flags: { peer: [asker.address] } });
  await lend({ shared: true });
  await usable(asker, ['own', 'far-model']);
  // Addresses are hints: the third node finds the owner itself, and asks it directly.
  await usable(third, ['own', 'far-model']);
  const answer = await third.chat('far-model');
  assert.equal(answer.headers.get('x-meshnode-node'), owner.fingerprint);
});

test('D-46 the registry of a lending node holds no key', async (t) => {
  const { owner, lend } = await pair(t);
  await lend({ shared: true });
  assert.doesNotMatch(await readFile(path.join(owner.dataDir, 'nodes.json'), 'utf8'), /canary/);
});
