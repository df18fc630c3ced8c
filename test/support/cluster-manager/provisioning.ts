/** A node's clusters with their rules over a stand-in manager, quick enough for tests. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { FacadeOptions } from '../../../node/api/components.ts';
import { Clusters } from '../../../node/backends/cluster/clusters.ts';
import {
  type ProvisionRule,
  type ProvisionWish,
  provisionRule,
} from '../../../node/backends/cluster-sessions/provision-rule.ts';
import { ProvisionRules } from '../../../node/backends/cluster-sessions/provision-rules.ts';
import {
  ProvisionedClusters,
  type ProvisionedClustersOptions,
} from '../../../node/backends/cluster-sessions/provisioned-clusters.ts';
import { systemClock } from '../../../node/common/clock.ts';
import { silentLogger } from '../../../node/common/logger.ts';
import { ClusterRegistry } from '../../../node/storage/cluster-registry.ts';
import type { InferenceEvent, InferenceRequest } from '../../../protocols/inference/events.ts';
import { loneDispatcher } from '../lone-routing.ts';
import { ScriptedEngine } from '../scripted-engine.ts';
import { startFacade } from '../scripted-facade.ts';
import { plainStore } from '../secret-parts.ts';
import { untilChange } from '../until-change.ts';
import { ClusterManager, KEYPAIR, type ManagerOptions } from './manager.ts';

export interface ProvisioningBench {
  readonly manager: ClusterManager;
  readonly registry: ClusterRegistry;
  readonly rules: ProvisionRules;
  readonly gateway: ProvisionedClusters;
  /** A rule of the cluster `lab`; by default for its folder `llama-3-70b`. */
  rule(wish?: Partial<ProvisionWish>): Promise<ProvisionRule>;
  /** Resolves when it is true, now or after a change. */
  until(isTrue: () => boolean): Promise<void>;
}

/** With one cluster, `lab`. */
export async function provisioningBench(
  context: TestContext,
  options: ProvisionedClustersOptions & ManagerOptions = {},
): Promise<ProvisioningBench> {
  const manager = await ClusterManager.start(options);
  const dataDir = await mkdtemp(join(tmpdir(), 'meshnode-provision-'));
  const components = { clock: systemClock, warn: () => {} };
  const secrets = plainStore(dataDir);
  const registry = new ClusterRegistry({ ...components, secrets }, { dataDir });
  await secrets.start();
  const { accessKey, secretKey } = KEYPAIR;
  await registry.add({ name: 'lab', endpoint: manager.url, accessKey, allowHttp: true }, secretKey);
  const logger = silentLogger;
  const clusters = new Clusters({ registry, clock: systemClock, logger }, { pollMs: 200 });
  const rules = new ProvisionRules(components, { dataDir });
  const quick = { lookMs: { first: 20, last: 50 }, idleLookMs: 50, ...options };
  const gateway = new ProvisionedClusters({ clusters, rules, clock: systemClock, logger }, quick);
  await gateway.start();
  context.after(async () => {
    await gateway.stop(AbortSignal.timeout(5000));
    await secrets.stop();
    await manager.stop();
    await rm(dataDir, { recursive: true, force: true });
  });
  const wished = { cluster: 'lab', model: 'llama-3-70b', image: 'vllm:latest' };
  const rule = (wish: Partial<ProvisionWish> = {}): Promise<ProvisionRule> =>
    rules.set(provisionRule({ ...wished, ...wish }), { keepsName: false });
  const until = (isTrue: () => boolean): Promise<void> => untilChange(gateway, isTrue);
  return { manager, registry, rules, gateway, rule, until };
}

/** A chat that says `question`. */
export function chatRequest(model: string, question: string, { stream = true } = {}): InferenceRequest {
  const body = { model, stream, messages: [{ role: 'user', content: question }] };
  return { requestId: 'a'.repeat(32), kind: 'chat', model, body: Buffer.from(JSON.stringify(body)), seed: 1 };
}

export const textOf = (events: readonly InferenceEvent[]): string =>
  events.map((event) => (event.type === 'chunk' ? event.text : '')).join('');

/** A facade whose router knows the bench's clusters and nothing else. */
export async function provisioningFacade(
  context: TestContext,
  { gateway }: ProvisioningBench,
  options: Partial<FacadeOptions> = {},
): Promise<string> {
  const local = new ScriptedEngine({ fingerprint: '12D3KooWHere', models: [], tokenDelayMs: 0 });
  const dispatcher = loneDispatcher({ local, gateways: gateway });
  const remoteModels = () => gateway.models();
  const facade = await startFacade({}, options, { dispatcher, remoteModels, localModels: () => [] });
  context.after(() => facade.stop());
  return facade.url;
}
