/**
 * Takes one client request through candidates: at most two attempts that cost something, commit at the first text,
 * one verdict for breakers and statistics at each attempt's end.
 */

import type { InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import type { Clock } from '../common/clock.ts';
import { ERROR_TABLE, type MeshError, toMeshError } from '../common/errors.ts';
import type { Logger } from '../common/logger.ts';
import type { Metrics } from '../common/metrics.ts';
import { attempt, clientClosed, type Progress } from './attempt.ts';
import { AttemptRecord } from './attempt-record.ts';
import { BackendHealth } from './backend-health.ts';
import type { Breakers } from './breakers.ts';
import type { Candidate } from './candidate.ts';
import type { Dispatch, Dispatcher, DispatchOptions } from './dispatch.ts';
import { refusalOf, withoutRetry } from './refusal.ts';
import { RequestLog, type RequestTrace } from './request-log.ts';
import { DEFAULT_RETRY_BUDGET, RetryBudget, type RetryBudgetOptions } from './retry-budget.ts';
import type { RoutingStats } from './routing-stats.ts';
import { type Choice, isWithin, type Selection, Selector } from './selector.ts';
import { DEFAULT_ROUTING_SETTINGS, type LoadBalancing, type RoutingSettings } from './settings.ts';

export interface MeshDispatcherComponents {
  readonly router: {
    /** Everyone who says that it serves the model. Reads memory only. */
    candidates(modelId: string): readonly Candidate[];
    /** Asks further away (the DHT), a bounded time long. */
    lookFurther(modelId: string, signal: AbortSignal): Promise<void>;
    /** The backend said that it does not serve this model after all. */
    forget(backendId: string, modelId: string): void;
  };
  readonly breakers: Breakers;
  readonly stats: RoutingStats;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Default: one of its own over `breakers`. */
  readonly health?: BackendHealth;
  readonly settings?: RoutingSettings;
  /** Default: one of its own, which nobody reads. */
  readonly requestLog?: RequestLog;
}

export interface MeshDispatcherOptions {
  /** From dispatch to the first token, queueing and loading included, milliseconds. Default 15 minutes. */
  readonly firstTokenTimeoutMs: number;
  readonly retryBudget: RetryBudgetOptions;
}

export const DEFAULT_DISPATCH: MeshDispatcherOptions = {
  firstTokenTimeoutMs: 900_000,
  retryBudget: DEFAULT_RETRY_BUDGET,
};

/** Attempts that may fail at a backend's cost: the first and one retry. */
const MAX_ATTEMPTS = 2;

/** One request, with what is known about it so far. */
interface Run {
  readonly request: InferenceRequest;
  readonly options: DispatchOptions;
  readonly trace: RequestTrace;
  readonly progress: Progress;
  readonly loadBalancing: LoadBalancing;
  /** Backends that failed this request. */
  readonly tried: Set<string>;
  /** The last failure; null before one. */
  failure: MeshError | null;
  /** Failed attempts that cost something. */
  costly: number;
}

export class MeshDispatcher implements Dispatcher {
  readonly #components: MeshDispatcherComponents;
  readonly #options: MeshDispatcherOptions;
  readonly #settings: RoutingSettings;
  readonly #requestLog: RequestLog;
  readonly #selector: Selector;
  readonly #budget: RetryBudget;

  constructor(components: MeshDispatcherComponents, options: MeshDispatcherOptions = DEFAULT_DISPATCH) {
    this.#components = components;
    this.#options = options;
    this.#settings = components.settings ?? DEFAULT_ROUTING_SETTINGS;
    this.#requestLog = components.requestLog ?? new RequestLog(components);
    this.#selector = new Selector({ health: components.health ?? new BackendHealth(components) });
    this.#budget = new RetryBudget(components, options.retryBudget);
  }

  dispatch(request: InferenceRequest, options: DispatchOptions): Dispatch {
    const progress: Progress = { servedBy: null, attempts: 0, committed: false, whole: false };
    return {
      events: this.#recorded(request, options, progress),
      get servedBy() {
        return progress.servedBy;
      },
      get attempts() {
        return progress.attempts;
      },
    };
  }

  async *#recorded(
    request: InferenceRequest,
    options: DispatchOptions,
    progress: Progress,
  ): AsyncGenerator<InferenceEvent> {
    const trace = this.#requestLog.begin(request, options);
    const loadBalancing = this.#settings.loadBalancing();
    const tried = new Set<string>();
    this.#budget.request();
    try {
      yield* this.#run({ request, options, trace, progress, loadBalancing, tried, failure: null, costly: 0 });
    } catch (thrown) {
      const error = toMeshError(thrown);
      trace.end(error.code);
      throw error;
    } finally {
      trace.end(progress.whole ? 'ok' : 'client_closed');
    }
  }

  async *#run(run: Run): AsyncGenerator<InferenceEvent> {
    for (;;) {
      let choice = this.#choose(run);
      if (choice.selection === null && this.#mayLookFurther(run)) {
        await this.#components.router.lookFurther(run.request.model, run.options.signal);
        choice = this.#choose(run);
      }
      const { selection } = choice;
      if (run.options.signal.aborted) {
        selection?.permit.released();
        throw clientClosed(run.options.signal);
      }
      if (selection === null) throw this.#refusal(run, choice);
      if (run.costly > 0 && !this.#budget.take()) {
        selection.permit.released();
        throw withoutRetry(run.failure ?? this.#refusal(run, choice));
      }
      try {
        yield* this.#attempt(run, selection);
        return;
      } catch (thrown) {
        this.#failed(run, selection, toMeshError(thrown));
      }
    }
  }

  #choose({ request, loadBalancing, tried, trace }: Run): Choice {
    const { model, boundary = 'public' } = request;
    const { strategy } = loadBalancing;
    const candidates = this.#components.router.candidates(model);
    const choice = this.#selector.choose(candidates, { model, boundary, strategy, tried });
    trace.candidates(choice.records, strategy);
    return choice;
  }

  /** Only when nobody within reach ever claimed the model: a lookup takes seconds. */
  #mayLookFurther({ request: { model, boundary = 'public' }, failure }: Run): boolean {
    if (boundary === 'local' || failure !== null) return false;
    return !this.#components.router.candidates(model).some((candidate) => isWithin(boundary, candidate.boundary));
  }

  /** Nobody is left: the failure that the client would have seen without a retry, or why nobody could be asked. */
  #refusal({ request, failure, loadBalancing }: Run, { none }: Choice): MeshError {
    if (failure !== null && failure.code !== 'model_not_loaded') return failure;
    const { model, boundary = 'public' } = request;
    return refusalOf({ model, boundary, loadBalancing: loadBalancing.enabled }, none);
  }

  #attempt(run: Run, { candidate: { backend }, permit, reason }: Selection): AsyncGenerator<InferenceEvent> {
    const { stats, metrics, clock } = this.#components;
    const { request, options, progress, trace } = run;
    progress.attempts += 1;
    const record = new AttemptRecord(
      { metrics, permit, stats, trace: trace.attempt(backend.id, because(run, reason)) },
      { backend, model: request.model },
    );
    const { firstTokenTimeoutMs } = this.#options;
    return attempt(request, { backend, record, progress, clock }, { ...options, firstTokenTimeoutMs });
  }

  /** Decides what a failed attempt leads to; throws when it is the end. */
  #failed(run: Run, { candidate: { backend } }: Selection, failure: MeshError): void {
    const { router, logger } = this.#components;
    const { request, progress, loadBalancing } = run;
    logger.debug({ requestId: request.requestId, backend: backend.id, code: failure.code }, 'attempt failed');
    if (failure.code === 'model_not_loaded') router.forget(backend.id, request.model);
    if (!isFree(failure)) run.costly += 1;
    run.failure = failure;
    run.tried.add(backend.id);
    // What is here is served here: a full queue of our own is no reason to send its overflow to others.
    const staysHere = backend.kind === 'engine' && failure.code === 'overloaded';
    const retry = loadBalancing.failoverEnabled && ERROR_TABLE[failure.code].elsewhere && !staysHere;
    if (!retry || progress.committed || run.costly >= MAX_ATTEMPTS) throw failure;
    progress.servedBy = null;
  }
}

/** Refusals that cost the refusing node nothing do not use up the retry. */
const isFree = (error: MeshError): boolean => error.code === 'model_not_loaded' || error.code === 'draining';

const because = ({ failure }: Run, reason: string): string =>
  failure === null ? reason : `After ${failure.code} elsewhere. ${reason}`;
