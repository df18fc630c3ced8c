/** The time of one routing decision: candidates from the index, their order, breakers and the permit. */
import { createHash } from 'node:crypto';
import type { Backend, LocalBackend } from '../node/backends/backend.ts';
import { systemClock } from '../node/common/clock.ts';
import { ModelIndex } from '../node/network/model-index.ts';
import { PeerTable } from '../node/network/peer-table.ts';
import { BackendHealth } from '../node/routing/backend-health.ts';
import { Breakers } from '../node/routing/breakers.ts';
import { Router } from '../node/routing/router.ts';
import { RoutingStats } from '../node/routing/routing-stats.ts';
import { Selector } from '../node/routing/selector.ts';
import { STRATEGY_NAMES, type StrategyName } from '../node/routing/settings.ts';
import type { CatalogEntry } from '../protocols/catalog/catalog.ts';

export const DECISION_PEERS = 200;
/** Every peer has all of them: the most candidates that a decision can have. */
export const DECISION_MODELS = 20;

const WARM_UP = 5000;
const DECISIONS = 10_000;

/** Milliseconds of each decision, by strategy. Each one ends well, so that figures and cursors move as they do in use. */
export function timeDecisions(): Readonly<Record<StrategyName, number[]>> {
  const names = STRATEGY_NAMES.map((strategy) => [strategy, decisions(strategy)] as const);
  return Object.fromEntries(names) as Record<StrategyName, number[]>;
}

function decisions(strategy: StrategyName): number[] {
  const clock = systemClock;
  const stats = new RoutingStats({ clock });
  const breakers = new Breakers({ clock });
  const selector = new Selector({ health: new BackendHealth({ breakers, clock }) });
  const router = new Router({
    local,
    index: new ModelIndex({ table: filledTable() }),
    providers: { find: async () => [] },
    stats,
    peerBackend: (id): Backend => ({ ...local, id, kind: 'peer' }),
  });
  const times: number[] = [];
  const tried = new Set<string>();
  for (let i = 0; i < WARM_UP + DECISIONS; i++) {
    const model = `model-${i % DECISION_MODELS}`;
    const startedAt = performance.now();
    const candidates = router.candidates(model);
    const { selection } = selector.choose(candidates, { model, boundary: 'public', strategy, tried });
    const elapsedMs = performance.now() - startedAt;
    if (i >= WARM_UP) times.push(elapsedMs);
    if (selection === null) throw new Error('nobody was chosen');
    const { id } = selection.candidate.backend;
    const end = stats.begin(id, model);
    stats.firstToken(id, model, (i * 7) % 40);
    selection.permit.succeeded();
    end('success', 5);
  }
  return times;
}

/** Peers with fingerprints like real ones: alike at their beginnings. */
function filledTable(): PeerTable {
  const table = new PeerTable();
  for (let i = 0; i < DECISION_PEERS; i++) {
    const fingerprint = `12D3KooW${createHash('sha256').update(`${i}`).digest('hex').slice(0, 44)}`;
    table.hello(fingerprint, { version: '1', name: `peer ${i}`, epoch: 1, engineBuild: '', peerHints: [] });
    table.snapshot(
      fingerprint,
      Array.from({ length: DECISION_MODELS }, (_, model) => entryOf(`model-${model}`)),
    );
    table.load(fingerprint, { inFlight: i % 4, queued: 0, engineAgeMs: 0, draining: false });
  }
  return table;
}

const entryOf = (id: string): CatalogEntry => ({
  id,
  digest: null,
  quantization: null,
  contextLength: 4096,
  sizeBytes: 1,
  state: 'resident',
  slots: 4,
  tokensPerSecond: null,
});

const local: LocalBackend = {
  id: 'here',
  kind: 'engine',
  catalog: () => [],
  onCatalogChange: () => () => {},
  infer: () => {
    throw new Error('not asked to infer');
  },
};
