/**
 * Takes one client request through candidates: at most two attempts that cost something, commit at the first text,
 * one verdict for breaker and statistics at each attempt's end.
 */

import type { ChunkEvent, InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import { type Clock, deadline } from '../common/clock.ts';
import { ERROR_TABLE, MeshError, toMeshError } from '../common/errors.ts';
import type { Logger } from '../common/logger.ts';
import type { Metrics } from '../common/metrics.ts';
import { AttemptRecord } from './attempt-record.ts';
import type { Candidate } from './candidate.ts';
import type { CircuitBreaker, Permit } from './circuit-breaker.ts';
import type { Dispatch, Dispatcher, DispatchOptions } from './dispatch.ts';
import type { RoutingStats } from './routing-stats.ts';

export interface MeshDispatcherComponents {
  readonly router: {
    /**
     * Candidates for a model, best first, without the excluded backends. Looks further (the DHT) when none is known.
     */
    candidates(modelId: string, excluded: ReadonlySet<string>, signal: AbortSignal): Promise<readonly Candidate[]>;
    /** The backend said that it does not serve this model after all. */
    forget(backendId: string, modelId: string): void;
  };
  readonly breakers: { of(backendId: string): CircuitBreaker };
  readonly stats: RoutingStats;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface MeshDispatcherOptions {
  /** Try another candidate before commit. Default true. */
  readonly failoverEnabled: boolean;
  /** From dispatch to the first token, queueing and loading included, milliseconds. Default 15 minutes. */
  readonly firstTokenTimeoutMs: number;
}

export const DEFAULT_DISPATCH: MeshDispatcherOptions = { failoverEnabled: true, firstTokenTimeoutMs: 900_000 };

/** Attempts that may fail at a backend's cost: the first and one retry. */
const MAX_ATTEMPTS = 2;

interface Progress {
  servedBy: string | null;
  attempts: number;
  committed: boolean;
}

export class MeshDispatcher implements Dispatcher {
  readonly #components: MeshDispatcherComponents;
  readonly #options: MeshDispatcherOptions;

  constructor(components: MeshDispatcherComponents, options: MeshDispatcherOptions = DEFAULT_DISPATCH) {
    this.#components = components;
    this.#options = options;
  }

  dispatch(request: InferenceRequest, options: DispatchOptions): Dispatch {
    const progress: Progress = { servedBy: null, attempts: 0, committed: false };
    return {
      events: this.#run(request, options, progress),
      get servedBy() {
        return progress.servedBy;
      },
      get attempts() {
        return progress.attempts;
      },
    };
  }

  async *#run(
    request: InferenceRequest,
    { signal, stream }: DispatchOptions,
    progress: Progress,
  ): AsyncGenerator<InferenceEvent> {
    const excluded = new Set<string>();
    let failure: MeshError | null = null;
    let costly = 0;
    for (;;) {
      const chosen = await this.#choose(request.model, excluded, failure, signal);
      progress.attempts += 1;
      try {
        yield* this.#attempt(request, chosen, { signal, stream, progress });
        return;
      } catch (thrown) {
        failure = verdictOf(thrown, signal, progress.committed);
        const { id } = chosen.candidate.backend;
        if (failure.code === 'model_not_loaded') this.#components.router.forget(id, request.model);
        if (!freeToRetry(failure)) costly += 1;
        const retry = this.#options.failoverEnabled && !progress.committed && ERROR_TABLE[failure.code].elsewhere;
        if (!retry || costly >= MAX_ATTEMPTS) throw failure;
        excluded.add(id);
        progress.servedBy = null;
      }
    }
  }

  /** The best candidate whose breaker lets us; throws the last failure, or why there is none. */
  async #choose(
    modelId: string,
    excluded: ReadonlySet<string>,
    failure: MeshError | null,
    signal: AbortSignal,
  ): Promise<{ candidate: Candidate; permit: Permit }> {
    const candidates = await this.#components.router.candidates(modelId, excluded, signal);
    if (signal.aborted) throw clientClosed(signal);
    let retryInMs = Number.POSITIVE_INFINITY;
    for (const candidate of candidates) {
      const breaker = this.#components.breakers.of(candidate.backend.id);
      const permit = breaker.acquire();
      if (permit !== null) return { candidate, permit };
      retryInMs = Math.min(retryInMs, breaker.view().retryInMs);
    }
    if (failure !== null && failure.code !== 'model_not_loaded') throw failure;
    if (candidates.length > 0) {
      throw new MeshError(
        'all_circuits_open',
        `Every node that serves '${modelId}' has failed repeatedly; try again shortly`,
        {
          param: 'model',
          retryAfterMs: Math.max(1000, retryInMs),
        },
      );
    }
    throw new MeshError(
      'model_not_available',
      `Model '${modelId}' is not available on this node or any reachable peer; GET /v1/models lists what is`,
      { param: 'model' },
    );
  }

  async *#attempt(
    request: InferenceRequest,
    { candidate, permit }: { candidate: Candidate; permit: Permit },
    { signal, stream, progress }: DispatchOptions & { progress: Progress },
  ): AsyncGenerator<InferenceEvent> {
    const { backend } = candidate;
    const endCount = this.#components.stats.begin(backend.id);
    const startedAt = this.#components.clock.now();
    const record = new AttemptRecord(this.#components.metrics, backend, permit, endCount);
    using firstToken = deadline(this.#components.clock, this.#options.firstTokenTimeoutMs, firstTokenTimeout, signal);
    /** Nothing of an attempt goes out before its commit, so that a failed one leaves no trace. */
    let held: InferenceEvent[] | null = [];
    try {
      for await (const event of backend.infer(request, { signal: firstToken.signal })) {
        if (event.type === 'progress') {
          yield event;
          continue;
        }
        if (event.type === 'accepted') progress.servedBy = event.node;
        if (event.type === 'chunk' && record.firstTokenMs === null) {
          record.firstTokenMs = this.#components.clock.now() - startedAt;
          firstToken.refresh(NEVER_MS);
        }
        if (event.type === 'end') record.succeeded(event);
        held?.push(event);
        if (held === null) yield event;
        else if (event.type === 'end' || (stream && isText(event))) {
          progress.committed = true;
          yield* held;
          held = null;
        }
        if (event.type === 'end') return;
      }
      throw new MeshError('peer_unreachable', 'The answer ended without its end');
    } catch (thrown) {
      const error = verdictOf(thrown, signal, progress.committed);
      record.failed(error);
      this.#components.logger.debug(
        { requestId: request.requestId, backend: backend.id, code: error.code },
        'attempt failed',
      );
      throw error;
    } finally {
      record.abandoned();
    }
  }
}

/** setTimeout's largest delay: about 24 days. */
const NEVER_MS = 2 ** 31 - 1;

const isText = (event: InferenceEvent): event is ChunkEvent => event.type === 'chunk' && event.text !== '';

const firstTokenTimeout = (): MeshError =>
  new MeshError('first_token_timeout', 'No token came within the bound for a first token');

function clientClosed(signal: AbortSignal): MeshError {
  return signal.reason instanceof MeshError ? signal.reason : new MeshError('client_closed', 'The client went away');
}

/** Refusals that cost the refusing node nothing do not use up the retry. */
const freeToRetry = (error: MeshError): boolean => error.code === 'model_not_loaded' || error.code === 'draining';

/** What a failed attempt means: an abort is the client's, a failure after commit is a lost answer. */
function verdictOf(thrown: unknown, signal: AbortSignal, committed: boolean): MeshError {
  if (signal.aborted) return clientClosed(signal);
  const error = toMeshError(thrown);
  if (!committed || ERROR_TABLE[error.code].breaker !== 'failure' || error.code === 'peer_lost') return error;
  return new MeshError('peer_lost', `The node that was answering was lost: ${error.message}`, { cause: error });
}
