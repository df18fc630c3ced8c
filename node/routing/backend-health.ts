/**
 * What stands between a request and a backend: breakers, cool-offs after a 429, keys that were refused. Judges every
 * attempt's end, and does not blame backends for this host's own trouble.
 */
import type { BackendKind } from '../backends/backend.ts';
import type { Clock } from '../common/clock.ts';
import { ERROR_TABLE, type ErrorCode, type MeshError } from '../common/errors.ts';
import type { Breakers } from './breakers.ts';
import { ExpiringMarks } from './expiring-marks.ts';

export interface BackendHealthComponents {
  readonly breakers: Breakers;
  readonly clock: Clock;
  /** Is this host itself in trouble (its event loop lags, it has no network), so that failures say nothing of others? */
  readonly ownTrouble?: () => boolean;
}

/** Why a backend cannot be asked now, and for how long. */
export interface Obstacle {
  readonly kind: 'circuit_open' | 'cooling_off';
  readonly retryInMs: number;
}

/** The right to make one attempt on a backend. The first verdict counts, later ones do nothing. */
export interface BackendPermit {
  /** Something came from the backend: the way to it is fine. */
  reached(): void;
  succeeded(): void;
  /** Did the failure count against the backend? */
  failed(error: MeshError): boolean;
  /** The attempt was given up and says nothing. */
  released(): void;
}

/** What is asked: the backend, and the model there. */
interface Target {
  readonly id: string;
  readonly kind: BackendKind;
  readonly model: string;
}

const DEFAULT_COOL_OFF_MS = 1000;
const MOST_COOL_OFF_MS = 30_000;
/** An engine that rests is asked at least this often whether it still does. */
const MOST_REST_MS = 60_000;
const UNAUTHORIZED_MS = 5 * 60_000;
/** Peers that become unreachable within this time of each other were cut off by one thing, which is more likely here. */
const OWN_TROUBLE_WINDOW_MS = 1000;
/** Peers that all fall silent within this time were not all at fault: it is this host's own network. */
const CUT_OFF_WINDOW_MS = 3000;

/** Whose failure a code is: the backend's, only that of one model there, or nobody's. */
export function blameOf(code: ErrorCode): 'backend' | 'model' | 'nobody' {
  if (ERROR_TABLE[code].breaker === 'neutral') return 'nobody';
  return code === 'engine_failed' || code === 'out_of_memory' ? 'model' : 'backend';
}

/** An engine that failed before and says for how long it rests: no further failure, and it knows better than a circuit. */
const isRefusal = ({ code, facts }: MeshError): boolean =>
  facts.retryAfterMs !== undefined && (code === 'wedged' || blameOf(code) === 'model');

const restMs = ({ facts }: MeshError): number => Math.min(facts.retryAfterMs ?? 0, MOST_REST_MS);

/** Failures of a server that say nothing of its other models. */
const OF_ONE_MODEL: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['upstream_error', 'first_token_timeout']);

const restOf = (backendId: string, modelId: string): string => `${backendId} ${modelId}`;

export class BackendHealth {
  readonly #components: BackendHealthComponents;
  readonly #coolOffs: ExpiringMarks;
  /** Engines that rest after a failure, by backend and model. */
  readonly #rests: ExpiringMarks;
  readonly #unauthorized: ExpiringMarks;
  /** Peers that were unreachable lately, with the time. */
  #unreachable: readonly { readonly id: string; readonly at: number }[] = [];
  #lastReachedAt = Number.NEGATIVE_INFINITY;
  /** Peers that fell silent lately, with the time. */
  #lost: readonly { readonly id: string; readonly at: number }[] = [];
  #cutOffUntil = Number.NEGATIVE_INFINITY;

  constructor(components: BackendHealthComponents) {
    this.#components = components;
    this.#coolOffs = new ExpiringMarks(components);
    this.#rests = new ExpiringMarks(components);
    this.#unauthorized = new ExpiringMarks(components);
  }

  /** Null when the backend can be asked for the model now. Changes nothing. */
  obstacle(backendId: string, modelId: string): Obstacle | null {
    const { breakers } = this.#components;
    if (!breakers.admits(backendId, modelId)) {
      return { kind: 'circuit_open', retryInMs: breakers.retryInMs(backendId, modelId) };
    }
    const restsMs = this.#rests.remainingMs(restOf(backendId, modelId));
    if (restsMs > 0) return { kind: 'circuit_open', retryInMs: restsMs };
    const ofModelMs = this.#coolOffs.remainingMs(restOf(backendId, modelId));
    const retryInMs = Math.max(this.#coolOffs.remainingMs(backendId), ofModelMs);
    return retryInMs > 0 ? { kind: 'cooling_off', retryInMs } : null;
  }

  /** Permits of the backend and of the model there, as one; null when either has none. */
  acquire(target: Target): BackendPermit | null {
    const { breakers } = this.#components;
    if (this.obstacle(target.id, target.model) !== null) return null;
    const permits = {
      backend: breakers.of(target.id).acquire(),
      model: breakers.ofModel(target.id, target.model).acquire(),
    };
    const { backend, model } = permits;
    return {
      reached: () => {
        if (target.kind === 'peer') this.#lastReachedAt = this.#components.clock.now();
      },
      succeeded: () => {
        backend?.success();
        model?.success();
        this.#unauthorized.delete(target.id);
      },
      failed: (error) => {
        const blame = this.#blame(target, error);
        if (blame === 'backend') backend?.failure();
        else backend?.neutral();
        if (blame === 'model') model?.failure();
        else model?.neutral();
        if (isRefusal(error)) this.#rests.set(restOf(target.id, target.model), restMs(error));
        else if (target.kind !== 'engine') this.#mark(target, error);
        return blame !== 'nobody';
      },
      released: () => {
        backend?.neutral();
        model?.neutral();
      },
    };
  }

  /** A peer fell silent without a goodbye. `left`: how many are still there. */
  peerLost(id: string, left: number): void {
    const { breakers, clock } = this.#components;
    const now = clock.now();
    const since = now - CUT_OFF_WINDOW_MS;
    this.#lost = [...this.#lost.filter((one) => one.at > since && one.id !== id), { id, at: now }];
    if (left > 0 || this.#lost.length < 2) return;
    this.#cutOffUntil = now + CUT_OFF_WINDOW_MS;
    for (const one of this.#lost) breakers.of(one.id).forgive(since);
  }

  /** A peer that had fallen silent, or is new, says what it serves. */
  peerReturned(id: string): void {
    this.#components.breakers.returned(id);
  }

  /** Did it refuse our key in the last five minutes? */
  isUnauthorized(backendId: string): boolean {
    return this.#unauthorized.has(backendId);
  }

  /** The owner changed its key: it is worth a try again. */
  clearUnauthorized(backendId: string): void {
    this.#unauthorized.delete(backendId);
  }

  #blame({ id, kind }: Target, error: MeshError): ReturnType<typeof blameOf> {
    const { code } = error;
    const blame = isRefusal(error) ? 'nobody' : blameOf(code);
    if (blame === 'nobody' || kind === 'engine') return blame;
    if (this.#components.ownTrouble?.() === true) return 'nobody';
    const isPeerGone = kind === 'peer' && code === 'peer_unreachable';
    const isCutOff = this.#components.clock.now() < this.#cutOffUntil;
    // Behind one server there are often many, of which only the one that has this model fails.
    if (kind === 'http' && OF_ONE_MODEL.has(code)) return 'model';
    return isPeerGone && (isCutOff || this.#manyAreUnreachable(id)) ? 'nobody' : blame;
  }

  /** Did another peer become unreachable just before, while nobody was reached? Then neither is to blame. */
  #manyAreUnreachable(id: string): boolean {
    const { breakers, clock } = this.#components;
    const now = clock.now();
    const since = now - OWN_TROUBLE_WINDOW_MS;
    this.#unreachable = [...this.#unreachable.filter((one) => one.at > since && one.id !== id), { id, at: now }];
    if (this.#unreachable.length < 2 || this.#lastReachedAt > since) return false;
    for (const one of this.#unreachable) breakers.of(one.id).forgive(since);
    return true;
  }

  #mark({ id: backendId, kind, model }: Target, { code, facts }: MeshError): void {
    if (code === 'rate_limited' || code === 'overloaded') {
      // The limits of servers are those of one model each; a peer has one queue for all.
      const who = kind === 'http' ? restOf(backendId, model) : backendId;
      this.#coolOffs.set(who, Math.min(facts.retryAfterMs ?? DEFAULT_COOL_OFF_MS, MOST_COOL_OFF_MS));
    }
    if (code === 'unauthorized' || code === 'forbidden') this.#unauthorized.set(backendId, UNAUTHORIZED_MS);
  }
}
