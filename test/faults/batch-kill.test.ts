/** A batch over three nodes, the owner of which is killed twice, and one that serves once. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { assertEachOnce, BatchClient, chatLine } from '../support/batch-client.ts';
import { NodeProcess, temporaryDir } from '../support/node-process.ts';

const SCRIPTED_MAIN = path.join(import.meta.dirname, '../support/scripted-node-main.ts');
const LINES = 2000;

test('2,000 lines over three nodes survive two kill -9 of their owner and one of a helper, each coming out once', async () => {
  const dirs: string[] = [];
  const nodes: NodeProcess[] = [];
  const start = (dataDir: string, peers: readonly string[]): NodeProcess => {
    const flags = ['--no-mdns', '--listen', '/ip4/127.0.0.1/tcp/0', ...peers.flatMap((peer) => ['--peer', peer])];
    const env = { SCRIPTED_MODELS: 'm', SCRIPTED_DELAY_MS: '100' };
    const node = new NodeProcess({ dataDir, bin: SCRIPTED_MAIN, flags, env });
    nodes.push(node);
    return node;
  };
  const newDir = (): string => {
    const dir = temporaryDir();
    dirs.push(dir);
    return dir;
  };
  try {
    const helpers = [start(newDir(), []), start(newDir(), [])];
    const helpersReady = await Promise.all(helpers.map((helper) => helper.ready()));
    const peers = helpersReady.map(({ multiaddrs }) => multiaddrs[0] ?? '');
    const ownDir = newDir();
    let owner = start(ownDir, peers);
    let api = (await owner.ready()).api;
    await until(async () => (await onlinePeers(api)) === 2);
    const client = new BatchClient(() => api);
    const { id } = await client.begin(Array.from({ length: LINES }, (_, index) => chatLine(index)).join('\n'));
    for (const share of [0.1, 0.4]) {
      const { request_counts } = await client.until(id, (batch) => batch.request_counts.completed >= LINES * share);
      assert.ok(request_counts.completed < LINES, 'it is killed in the middle');
      await owner.kill();
      owner = start(ownDir, peers);
      api = (await owner.ready()).api;
      assert.ok(
        (await client.get(id)).request_counts.completed >= request_counts.completed,
        'what was told stays true',
      );
    }
    await client.until(id, ({ request_counts }) => request_counts.completed >= LINES * 0.6);
    await helpers[0]?.kill();
    const batch = await client.over(id);
    assert.equal(batch.status, 'completed');
    assert.deepEqual(batch.request_counts, { total: LINES, completed: LINES, failed: 0 });
    assert.equal(batch.error_file_id, null);
    assertEachOnce(await client.content(batch.output_file_id), LINES);
    assert.ok((await requestsTo(api, helpersReady[1]?.fingerprint ?? '')) > 0, 'the others helped');
  } finally {
    await Promise.all(nodes.map((node) => node.kill()));
    for (const dir of dirs) rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
  }
});

test('real answers survive the kill of their node, and embeddings are batches too', async () => {
  const dataDir = temporaryDir();
  const flags = ['--no-mdns', '--listen', '/ip4/127.0.0.1/tcp/0'];
  let node = new NodeProcess({ dataDir, flags });
  try {
    let api = (await node.ready()).api;
    const client = new BatchClient(() => api);
    const lines = Array.from({ length: 40 }, (_, index) =>
      chatLine(index, {}, { model: 'meshnode-demo', temperature: 0, max_tokens: 24 }),
    );
    const { id } = await client.begin(lines.join('\n'));
    const { request_counts } = await client.until(id, (batch) => batch.request_counts.completed >= 4);
    assert.ok(request_counts.completed < lines.length, 'it is killed in the middle');
    await node.kill();
    node = new NodeProcess({ dataDir, flags });
    api = (await node.ready()).api;
    const batch = await client.over(id);
    assert.deepEqual(batch.request_counts, { total: 40, completed: 40, failed: 0 });
    const answers = await client.content(batch.output_file_id);
    assert.equal(new Set(answers.map(({ custom_id }) => custom_id)).size, 40);
    assert.ok(answers.every(({ response }) => response?.body.choices?.[0]?.message?.content));
    const body = { model: 'meshnode-demo', input: 'A fox.' };
    const line = JSON.stringify({ custom_id: 'e', method: 'POST', url: '/v1/embeddings', body });
    const embedded = await client.over((await client.begin(line, { endpoint: '/v1/embeddings' })).id);
    const [embedding] = await client.content(embedded.output_file_id);
    assert.ok(Array.isArray(embedding?.response?.body.data?.[0]?.embedding));
  } finally {
    await node.kill();
    rmSync(dataDir, { recursive: true, force: true, maxRetries: 3 });
  }
});

async function onlinePeers(api: string): Promise<number> {
  const { peers } = (await (await fetch(`${api}/api/v1/peers`)).json()) as {
    peers: { status: string; models: object[] }[];
  };
  return peers.filter(({ status, models }) => status === 'online' && models.length > 0).length;
}

async function requestsTo(api: string, fingerprint: string): Promise<number> {
  const stats = (await (await fetch(`${api}/api/v1/pool/routing-stats`)).json()) as {
    nodes: { fingerprint: string; totalRequests: number }[];
  };
  return stats.nodes.find((node) => node.fingerprint === fingerprint)?.totalRequests ?? 0;
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  const giveUpAt = performance.now() + 30_000;
  while (!(await holds())) {
    if (performance.now() > giveUpAt) throw new Error('waited in vain');
    await new Promise((resolve) => {
      setTimeout(resolve, 50);
    });
  }
}
