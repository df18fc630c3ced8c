/** A whole routing core over scripted engines that are twins of each other, unless told otherwise, and that die on order. */
import assert from 'node:assert/strict';
import type { Backend, BackendKind, LocalBackend } from '../../node/backends/backend.ts';
import { type ErrorCode, MeshError } from '../../node/common/errors.ts';
import { silentLogger } from '../../node/common/logger.ts';
import { Metrics } from '../../node/common/metrics.ts';
import { BackendHealth } from '../../node/routing/backend-health.ts';
import { Breakers } from '../../node/routing/breakers.ts';
import type { DispatchOptions } from '../../node/routing/dispatch.ts';
import { DEFAULT_DISPATCH, MeshDispatcher } from '../../node/routing/mesh-dispatcher.ts';
import { RequestLog } from '../../node/routing/request-log.ts';
import { Router } from '../../node/routing/router.ts';
import { RoutingStats } from '../../node/routing/routing-stats.ts';
import { DEFAULT_LOAD_BALANCING, type LoadBalancing } from '../../node/routing/settings.ts';
import type { CatalogEntry } from '../../protocols/catalog/catalog.ts';
import type { Boundary, InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import { ManualClock } from './manual-clock.ts';
import { ScriptedEngine, type ScriptedEngineOptions } from './scripted-engine.ts';

/** How one attempt ends before its time. `hang`: nothing more until it is cancelled. `cut`: no end, and no error. */
export interface Death {
  /** Tokens of its own that the attempt gives before. */
  readonly after: number;
  readonly code: ErrorCode | 'hang' | 'cut';
  readonly retryAfterMs?: number;
}

export interface Twin extends Partial<Pick<ScriptedEngineOptions, 'digest' | 'build' | 'textLag'>> {
  /** Default `peer`. */
  readonly kind?: Extract<BackendKind, 'engine' | 'peer'>;
  readonly contextLength?: number;
  readonly boundary?: Boundary;
  /** One for each attempt on it, in order; null: that one lives. Later attempts live. */
  readonly deaths?: (Death | null)[];
  /** It does not come back: from its first death on nobody lists it. */
  readonly gone?: boolean;
  /** Its template gives another prompt, and it does not notice. */
  readonly otherPrompt?: boolean;
  readonly suspect?: boolean;
}

export const MODEL = 'm';
export const SEED = 7;
/** How far the clock moves in each turn of the event loop, while `run` runs. */
const TICK_MS = 50;

export function askFor(count: number, more: Record<string, unknown> = {}): InferenceRequest {
  const body = JSON.stringify({ model: MODEL, max_tokens: count, messages: [{ role: 'user', content: 'x' }], ...more });
  const choices = typeof more['n'] === 'number' ? more['n'] : 1;
  return {
    requestId: 'a'.repeat(32),
    kind: 'chat',
    model: MODEL,
    body: new TextEncoder().encode(body),
    seed: SEED,
    choices,
  };
}

/** One call of a backend. */
export interface Asked {
  readonly id: string;
  readonly request: InferenceRequest;
  /** Was the iteration left or ended, in whichever way? */
  done: boolean;
}

/** `here` is the engine of this node; all others are peers. They may be changed while the mesh is used. */
export function twinMesh(twins: Record<string, Twin>, options: { loadBalancing?: Partial<LoadBalancing> } = {}) {
  const clock = new ManualClock();
  const stats = new RoutingStats({ clock });
  const breakers = new Breakers({ clock });
  const health = new BackendHealth({ breakers, clock });
  const metrics = new Metrics();
  const requestLog = new RequestLog({ clock });
  const asked: Asked[] = [];
  const dead = new Set<string>();
  const attemptsOf = new Map<string, number>();
  let loadBalancing: LoadBalancing = { ...DEFAULT_LOAD_BALANCING, ...options.loadBalancing };
  const settings = {
    loadBalancing: () => loadBalancing,
    remote: (id: string) => ({ priority: 0, boundary: twins[id]?.boundary ?? ('mesh' as const) }),
  };
  const engineOf = (id: string): ScriptedEngine => {
    const { digest, build, textLag } = twins[id] ?? {};
    return new ScriptedEngine({
      fingerprint: id,
      models: [MODEL],
      tokenDelayMs: 0,
      ...(digest !== undefined && { digest }),
      ...(build !== undefined && { build }),
      ...(textLag !== undefined && { textLag }),
    });
  };
  const entryOf = (id: string): CatalogEntry => {
    const entry = engineOf(id).catalog()[0];
    assert.ok(entry !== undefined);
    return { ...entry, contextLength: twins[id]?.contextLength ?? entry.contextLength };
  };
  async function* infer(id: string, request: InferenceRequest, signal: AbortSignal): AsyncGenerator<InferenceEvent> {
    const record: Asked = { id, request, done: false };
    asked.push(record);
    const attempt = attemptsOf.get(id) ?? 0;
    attemptsOf.set(id, attempt + 1);
    const twin = twins[id];
    const death = twin?.deaths?.[attempt] ?? null;
    const engine = engineOf(id);
    if (twin?.otherPrompt === true) engine.fault = { kind: 'other_prompt', afterTokens: 0, times: 1 };
    let given = 0;
    try {
      if (death?.after === -1) yield* die(id, death, signal);
      for await (const event of engine.infer(request, { signal })) {
        if (death !== null && event.type !== 'accepted' && given >= death.after) return yield* die(id, death, signal);
        if (event.type === 'chunk') given += event.tokens.length;
        yield event;
      }
    } finally {
      record.done = true;
    }
  }
  async function* die(id: string, death: Death, signal: AbortSignal): AsyncGenerator<never> {
    if (twins[id]?.gone === true) dead.add(id);
    if (death.code === 'cut') return;
    if (death.code === 'hang') {
      await new Promise((_, reject) => {
        if (signal.aborted) reject(signal.reason);
        signal.addEventListener('abort', () => reject(signal.reason), { once: true });
      });
    } else {
      const { retryAfterMs } = death;
      throw new MeshError(death.code, `scripted ${death.code}`, retryAfterMs === undefined ? {} : { retryAfterMs });
    }
  }
  const listed = (kind: 'engine' | 'peer'): string[] =>
    Object.keys(twins).filter((id) => (twins[id]?.kind ?? 'peer') === kind && !dead.has(id));
  const backendOf = (id: string): Backend => ({
    id,
    kind: 'peer',
    infer: (request, { signal }) => infer(id, request, signal),
  });
  const local: LocalBackend = {
    id: 'here',
    kind: 'engine',
    catalog: () => listed('engine').map(entryOf),
    onCatalogChange: () => () => {},
    infer: (request, { signal }) => infer('here', request, signal),
  };
  const router = new Router({
    local,
    engineBuild: 'scripted',
    index: {
      holders: () =>
        listed('peer').map((id) => ({
          fingerprint: id,
          entry: entryOf(id),
          peer: {
            fingerprint: id,
            name: id,
            version: '',
            engineBuild: twins[id]?.build ?? 'scripted',
            epoch: 0,
            status: twins[id]?.suspect === true ? ('suspect' as const) : ('online' as const),
            addresses: [],
            latencyMs: null,
            load: null,
            models: [],
            lastSeen: 0,
          },
        })),
      drop: (id) => dead.add(id),
    },
    providers: { find: async () => [] },
    stats,
    peerBackend: backendOf,
    settings,
  });
  const dispatcher = new MeshDispatcher(
    { router, breakers, health, stats, settings, requestLog, metrics, clock, logger: silentLogger },
    DEFAULT_DISPATCH,
  );
  const run = async (request: InferenceRequest, dispatchOptions: Partial<DispatchOptions> = {}) => {
    const signal = new AbortController().signal;
    const dispatch = dispatcher.dispatch(request, { signal, stream: true, ...dispatchOptions });
    const events: InferenceEvent[] = [];
    let error: MeshError | null = null;
    let isOver = false;
    // Time goes on while it runs: what waits is not to wait for ever.
    const tick = (): void => {
      if (isOver) return;
      clock.advance(TICK_MS);
      setImmediate(tick);
    };
    setImmediate(tick);
    try {
      for await (const event of dispatch.events) events.push(event);
    } catch (thrown) {
      assert.ok(thrown instanceof MeshError);
      error = thrown;
    }
    isOver = true;
    const { servedBy, attempts, resumed, nodes } = dispatch;
    return { events, error, code: error?.code ?? null, servedBy, attempts, resumed, nodes: [...nodes] };
  };
  const configure = (patch: Partial<LoadBalancing>): void => {
    loadBalancing = { ...loadBalancing, ...patch };
  };
  const continuations = async (): Promise<Record<string, number>> => {
    const { values } = await metrics.continuations.get();
    return Object.fromEntries(values.map(({ labels, value }) => [labels.outcome ?? '', value]));
  };
  const ids = (): string[] => asked.map(({ id }) => id);
  return { run, asked, ids, clock, stats, breakers, requestLog, dispatcher, configure, continuations, dead };
}

/** Text of one choice. */
export const textOf = (events: readonly InferenceEvent[], choice = 0): string =>
  events.map((event) => (event.type === 'chunk' && event.choice === choice ? event.text : '')).join('');

export const tokensOf = (events: readonly InferenceEvent[], choice = 0): number[] =>
  events.flatMap((event) => (event.type === 'chunk' && event.choice === choice ? event.tokens : []));
