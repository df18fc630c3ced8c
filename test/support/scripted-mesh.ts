/** A whole routing core over scripted backends: real router, breakers, statistics and log; only the backends are played. */
import assert from 'node:assert/strict';
import type { Backend, BackendKind, LocalBackend } from '../../node/backends/backend.ts';
import { type ErrorCode, type ErrorFacts, MeshError } from '../../node/common/errors.ts';
import { silentLogger } from '../../node/common/logger.ts';
import { Metrics } from '../../node/common/metrics.ts';
import type { IndexedModel } from '../../node/network/model-index.ts';
import { BackendHealth } from '../../node/routing/backend-health.ts';
import { Breakers } from '../../node/routing/breakers.ts';
import type { DispatchOptions } from '../../node/routing/dispatch.ts';
import { DEFAULT_DISPATCH, MeshDispatcher } from '../../node/routing/mesh-dispatcher.ts';
import { RequestLog } from '../../node/routing/request-log.ts';
import { Router } from '../../node/routing/router.ts';
import { RoutingStats } from '../../node/routing/routing-stats.ts';
import { DEFAULT_LOAD_BALANCING, type LoadBalancing, type RemoteSettings } from '../../node/routing/settings.ts';
import type { ModelState } from '../../protocols/catalog/catalog.ts';
import type { InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import { ManualClock } from './manual-clock.ts';
import { entryOf } from './sketched-candidate.ts';

/** What a scripted backend does: the words it gives, then its end, an error, a cut, or silence until it is cancelled. */
export interface PlayedScript {
  words?: string[];
  ending?: ErrorCode | 'end' | 'hang' | 'cut';
  facts?: ErrorFacts;
  kind?: BackendKind;
  state?: ModelState;
  suspect?: boolean;
}

export const REQUEST: InferenceRequest = {
  requestId: 'a'.repeat(32),
  kind: 'chat',
  model: 'm',
  body: new TextEncoder().encode('{"messages":[{"role":"user","content":"a secret prompt"}]}'),
  seed: 1,
};
export const STREAM: DispatchOptions = { signal: new AbortController().signal, stream: true };

function played(id: string, script: PlayedScript, log: string[]): Backend {
  return {
    id,
    kind: script.kind ?? 'peer',
    async *infer(request, { signal }): AsyncGenerator<InferenceEvent> {
      log.push(id);
      assert.deepEqual(request.body, REQUEST.body, 'the body is replayed whole');
      const { words = [], ending = 'end', facts = {} } = script;
      try {
        if (words.length > 0 || ending === 'end') {
          yield { type: 'accepted', node: id, promptTokens: 1, promptDigest: '', artifact: null };
        }
        for (const [index, text] of words.entries()) yield { type: 'chunk', choice: 0, index, tokens: [index], text };
        if (ending === 'hang') {
          await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
        }
        if (ending === 'end') {
          const usage = { promptTokens: 1, completionTokens: words.length, cachedTokens: 0 };
          yield { type: 'end', finishReasons: ['stop'], usage, timings: { promptMs: 0, predictedMs: 0 } };
        } else if (ending !== 'cut' && ending !== 'hang') throw new MeshError(ending, `scripted ${ending}`, facts);
      } finally {
        log.push(`${id} done`);
      }
    },
  };
}

const peerView = (fingerprint: string, suspect: boolean): IndexedModel['peer'] => ({
  fingerprint,
  name: fingerprint,
  version: '',
  engineBuild: '',
  epoch: 0,
  status: suspect ? 'suspect' : 'online',
  addresses: [],
  latencyMs: null,
  load: null,
  models: [],
  lastSeen: 0,
});

export interface ScriptedMeshOptions {
  readonly loadBalancing?: Partial<LoadBalancing>;
  readonly remotes?: Readonly<Record<string, Partial<RemoteSettings>>>;
  /** Scripts of peers that only the DHT knows. */
  readonly far?: Readonly<Record<string, PlayedScript>>;
  /** Retries that are always free. */
  readonly retryFloor?: number;
}

/** All scripts serve model `m`; they may be changed while the mesh is used. */
export function scriptedMesh(scripts: Record<string, PlayedScript>, options: ScriptedMeshOptions = {}) {
  const log: string[] = [];
  const clock = new ManualClock();
  const stats = new RoutingStats({ clock });
  const breakers = new Breakers({ clock });
  let loadBalancing: LoadBalancing = { ...DEFAULT_LOAD_BALANCING, ...options.loadBalancing };
  const settings = {
    loadBalancing: () => loadBalancing,
    remote: (id: string): RemoteSettings => ({ priority: 0, boundary: 'mesh', ...options.remotes?.[id] }),
  };
  const dropped = new Set<string>();
  let isAwaited = (): boolean => false;
  const looked: string[] = [];
  const asked: string[] = [];
  const idsOf = (kind: BackendKind): string[] =>
    Object.keys(scripts).filter((id) => (scripts[id]?.kind ?? 'peer') === kind && !dropped.has(id));
  const backend = (id: string): Backend => played(id, scripts[id] ?? {}, log);
  const local: LocalBackend = {
    id: 'here',
    kind: 'engine',
    catalog: () => idsOf('engine').map((id) => entryOf(scripts[id]?.state)),
    onCatalogChange: () => () => {},
    infer: (request, inferOptions) => backend('here').infer(request, inferOptions),
  };
  const suspectOf = (id: string): boolean => scripts[id]?.suspect === true;
  const router = new Router({
    local,
    index: {
      holders: (model) => {
        asked.push(model);
        const ids = model === REQUEST.model ? idsOf('peer') : [];
        return ids.map((id) => ({
          fingerprint: id,
          entry: entryOf(scripts[id]?.state),
          peer: peerView(id, suspectOf(id)),
        }));
      },
      drop: (id) => dropped.add(id),
      isAwaited: () => isAwaited(),
    },
    providers: {
      find: async (model) => {
        looked.push(model);
        Object.assign(scripts, options.far);
        return [];
      },
    },
    stats,
    peerBackend: (id) => ({ id, kind: 'peer', infer: (request, rest) => backend(id).infer(request, rest) }),
    gateways: {
      holders: (model) => {
        const ids = model === REQUEST.model ? idsOf('http') : [];
        return ids.map((id) => ({ backend: backend(id), entry: entryOf(scripts[id]?.state), suspect: suspectOf(id) }));
      },
      drop: (id) => dropped.add(id),
    },
    settings,
  });
  const health = new BackendHealth({ breakers, clock });
  const requestLog = new RequestLog({ clock, wallClock: () => 1_700_000_000_000 });
  const components = { router, breakers, health, stats, settings, requestLog, metrics: new Metrics(), clock };
  const floor = options.retryFloor ?? DEFAULT_DISPATCH.retryBudget.floor;
  const dispatcher = new MeshDispatcher(
    { ...components, logger: silentLogger },
    { ...DEFAULT_DISPATCH, retryBudget: { ...DEFAULT_DISPATCH.retryBudget, floor } },
  );
  let requests = 0;
  const run = async (dispatchOptions: Partial<DispatchOptions> = {}, request: Partial<InferenceRequest> = {}) => {
    const requestId = (++requests).toString(16).padStart(32, '0');
    const dispatch = dispatcher.dispatch({ ...REQUEST, requestId, ...request }, { ...STREAM, ...dispatchOptions });
    const events: InferenceEvent[] = [];
    let error: MeshError | null = null;
    try {
      for await (const event of dispatch.events) events.push(event);
    } catch (thrown) {
      assert.ok(thrown instanceof MeshError);
      error = thrown;
    }
    const text = events.map((event) => (event.type === 'chunk' ? event.text : '')).join('');
    const { servedBy, attempts } = dispatch;
    return { events, text, error, code: error?.code ?? null, servedBy, attempts, requestId };
  };
  const configure = (patch: Partial<LoadBalancing>): void => {
    loadBalancing = { ...loadBalancing, ...patch };
  };
  /** Whether the index says that a peer with the model was lost just now. */
  const awaits = (says: () => boolean): void => {
    isAwaited = says;
  };
  /** Backends that were asked, in order, without their ends. */
  const dials = (): string[] => log.filter((line) => !line.endsWith(' done'));
  const parts = { clock, stats, breakers, health, requestLog, dispatcher };
  return { run, log, dials, dropped, configure, awaits, looked, asked, ...parts };
}
