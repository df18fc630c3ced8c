/** What a cluster runs is followed while it changes: services, their models, and the registry itself. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { Clusters } from '../../node/backends/cluster/clusters.ts';
import { systemClock } from '../../node/common/clock.ts';
import { silentLogger } from '../../node/common/logger.ts';
import type { ClusterRecord } from '../../node/storage/cluster-registry.ts';
import { ClusterManager, KEYPAIR } from '../support/cluster-manager/manager.ts';
import { untilChange } from '../support/until-change.ts';

const POLL_MS = 40;

/** A registry in memory. */
class Registry {
  records: readonly ClusterRecord[] = [];
  readonly secrets = new Map<string, string>();
  readonly #listeners = new Set<() => void>();

  list(): readonly ClusterRecord[] {
    return this.records;
  }

  secretOf(slug: string): string | null {
    return this.secrets.get(slug) ?? null;
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  tell(): void {
    for (const listener of this.#listeners) listener();
  }

  async start(): Promise<void> {}
  async stop(): Promise<void> {}
}

const recordOf = (manager: ClusterManager, more: Partial<ClusterRecord> = {}): ClusterRecord => ({
  ...{ slug: 'lab', name: 'lab', endpoint: manager.url, accessKey: KEYPAIR.accessKey, allowHttp: true },
  ...{ priority: 0, share: false, hasSecret: true },
  ...more,
});

async function started(context: TestContext) {
  const manager = await ClusterManager.start();
  const registry = new Registry();
  registry.secrets.set('lab', KEYPAIR.secretKey);
  registry.records = [recordOf(manager)];
  const clusters = new Clusters({ registry, clock: systemClock, logger: silentLogger }, { pollMs: POLL_MS });
  context.after(async () => {
    await clusters.stop();
    await manager.stop();
  });
  const ids = (): readonly string[] => clusters.models().map(({ fingerprint, entry }) => `${fingerprint} ${entry.id}`);
  /** Waits for the next changes until it is so. */
  const until = (isSo: () => boolean): Promise<void> => untilChange(clusters, isSo);
  return { manager, registry, clusters, ids, until };
}

test('C-11 services that come, go and come back are followed poll by poll', async (context) => {
  const { manager, clusters, ids, until } = await started(context);
  const llama = manager.addService('llama-svc', 'llama');
  await clusters.start();
  await until(() => ids().join() === 'cluster:lab/llama-svc llama');
  manager.addService('qwen-svc', 'qwen');
  await until(() => ids().length === 2);
  manager.services.scale(llama, 0);
  await until(() => ids().join() === 'cluster:lab/qwen-svc qwen');
  assert.deepEqual(clusters.holders('llama'), []);
  manager.services.scale(llama, 1);
  await until(() => ids().length === 2);
  manager.services.delete(llama);
  await until(() => ids().join() === 'cluster:lab/qwen-svc qwen');
});

test('a holder carries its place, its sharing and its service as its own backend', async (context) => {
  const { manager, registry, clusters, until } = await started(context);
  registry.records = [recordOf(manager, { priority: 4, share: true })];
  manager.addService('llama-svc', 'llama');
  await clusters.start();
  await until(() => clusters.holders('llama').length === 1);
  const [holder] = clusters.holders('llama');
  const { backend, place, shared, suspect } = holder ?? assert.fail();
  assert.deepEqual([backend.id, backend.kind, shared, suspect], ['cluster:lab/llama-svc', 'http', true, false]);
  assert.deepEqual(place, { priority: 4, boundary: 'private-cluster' });
  assert.equal(clusters.holders('llama')[0]?.backend, backend);
  assert.deepEqual(
    clusters.models().map(({ shared: isShared, boundary }) => [isShared, boundary]),
    [[true, 'private-cluster']],
  );
});

test('a record that changes is taken over, another secret too, and one that is gone takes its models along', async (context) => {
  const { manager, registry, clusters, ids, until } = await started(context);
  registry.secrets.set('lab', 'not-the-secret');
  manager.addService('llama-svc', 'llama');
  await clusters.start();
  await until(() => clusters.views()[0]?.status === 'auth_error');
  assert.deepEqual(ids(), []);
  registry.secrets.set('lab', KEYPAIR.secretKey);
  registry.tell();
  await until(() => ids().length === 1);
  registry.records = [recordOf(manager, { priority: 9 })];
  registry.tell();
  await until(() => clusters.holders('llama')[0]?.place?.priority === 9);
  registry.records = [];
  registry.tell();
  assert.deepEqual([ids(), clusters.list(), clusters.views()], [[], [], []]);
});

test('a service whose token cannot be had is left out and named, the others serve', async (context) => {
  const { manager, clusters, ids, until } = await started(context);
  manager.addService('llama-svc', 'llama');
  const broken = manager.addService('broken-svc', 'broken');
  const token = manager.services.token.bind(manager.services);
  manager.services.token = (service, body, nowMs) => (service === broken ? { token: '' } : token(service, body, nowMs));
  await clusters.start();
  await until(() => ids().join() === 'cluster:lab/llama-svc llama');
  assert.match(clusters.views()[0]?.problem ?? '', /broken-svc: .*no usable token/);
  assert.equal(clusters.views()[0]?.status, 'connected');
});

test('tokens that were revoked are replaced by the next poll of a service, without any request', async (context) => {
  const { manager, clusters, ids, until } = await started(context);
  manager.addService('llama-svc', 'llama');
  await clusters.start();
  await until(() => ids().length === 1);
  manager.services.revokeTokens();
  await until(() => ids().length === 0);
  await until(() => ids().length === 1);
  assert.equal(manager.services.issued, 2);
});

test('a manager that goes away and comes back leaves the models where they are', async (context) => {
  const { manager, clusters, ids, until } = await started(context);
  manager.addService('llama-svc', 'llama');
  await clusters.start();
  await until(() => ids().length === 1);
  manager.faults.down = true;
  await until(() => clusters.views()[0]?.status === 'unreachable');
  assert.equal(ids().length, 1);
  manager.faults.down = false;
  await until(() => clusters.views()[0]?.status === 'connected');
});

test('it starts beside a cluster that hangs, and stops at once', async (context) => {
  const { manager, clusters } = await started(context);
  manager.faults.delayMs = 60_000;
  await clusters.start();
  assert.equal(clusters.views()[0]?.status, null);
  assert.equal(clusters.list()[0]?.status, 'offline');
  await clusters.stop();
  assert.deepEqual(clusters.list(), []);
});
