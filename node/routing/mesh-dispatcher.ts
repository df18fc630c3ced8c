/**
 * Takes one client request through candidates: at most two attempts that cost something before the first token, and
 * twins that go on with what was given after it. One verdict for breakers and statistics at each attempt's end.
 */

import type { InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import { sleep } from '../common/clock.ts';
import { ERROR_TABLE, type MeshError, toMeshError } from '../common/errors.ts';
import { attempt, clientClosed } from './attempt.ts';
import { AttemptRecord } from './attempt-record.ts';
import { BackendHealth } from './backend-health.ts';
import { BrokenAnswer } from './broken-answer.ts';
import type { Candidate } from './candidate.ts';
import { isContinuable } from './continuation.ts';
import type { Dispatch, Dispatcher, DispatchOptions } from './dispatch.ts';
import type { MeshDispatcherComponents, MeshDispatcherOptions } from './mesh-dispatcher-components.ts';
import { ModelChain } from './model-chain.ts';
import { mayContinue, nextModel } from './next-model.ts';
import { Progress } from './progress.ts';
import { lostAnswer, refusalOf, withoutRetry } from './refusal.ts';
import { RequestLog } from './request-log.ts';
import { DEFAULT_RETRY_BUDGET, RetryBudget } from './retry-budget.ts';
import { ReturnWait } from './return-wait.ts';
import { firstTokenMs, mayAskAgain, patienceOf } from './route-again.ts';
import type { Run } from './run.ts';
import { reasonAfter } from './selection-reason.ts';
import { type Choice, isWithin, type Question, type Selection, Selector } from './selector.ts';
import { DEFAULT_ROUTING_SETTINGS, type RoutingSettings } from './settings.ts';

export const DEFAULT_DISPATCH: MeshDispatcherOptions = {
  firstTokenTimeoutMs: 900_000,
  silentRouteMs: 60_000,
  repeatWithinMs: 10_000,
  retryBudget: DEFAULT_RETRY_BUDGET,
};

/** Attempts that may fail at a backend's cost: the first and one retry. */
const MAX_ATTEMPTS = 2;
/** How long an answer that broke off waits for a twin that is only busy. */
const TWIN_WAIT_MS = 30_000;
/** Of the questions for a twin, those for one that did not fail yet. */
const TWIN_QUESTIONS = 2;

/** An attempt that is counted and not yet asked for its events. */
interface Attempt {
  readonly candidate: Candidate;
  readonly events: AsyncGenerator<InferenceEvent>;
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
    const progress = new Progress(request, options);
    const chain = new ModelChain(request, this.#settings.aliases?.().chainOf(request.model) ?? [request.model]);
    return {
      events: this.#recorded(chain, options, progress),
      get servedBy() {
        return progress.servedBy;
      },
      get model() {
        return chain.shown;
      },
      get attempts() {
        return progress.attempts;
      },
      get resumed() {
        return Math.max(0, progress.nodes.length - 1);
      },
      get nodes() {
        return progress.nodes;
      },
    };
  }

  async *#recorded(chain: ModelChain, options: DispatchOptions, progress: Progress): AsyncGenerator<InferenceEvent> {
    const trace = this.#requestLog.begin(chain.request, options, chain);
    const loadBalancing = this.#settings.loadBalancing();
    const begun = {
      tried: new Set<string>(),
      failure: null,
      refusal: null,
      costly: 0,
      broken: null,
      last: null,
      hasGoneOn: false,
    };
    this.#budget.request();
    try {
      yield* this.#run({ chain, options, trace, progress, loadBalancing, ...begun });
    } catch (thrown) {
      const error = toMeshError(thrown);
      trace.end(error.code);
      throw error;
    } finally {
      trace.end(progress.whole ? 'ok' : 'client_closed');
    }
  }

  /** One attempt after the other, one model after the other. @throws MeshError when nobody is left. */
  async *#run(run: Run): AsyncGenerator<InferenceEvent> {
    const { progress } = run;
    while (!progress.whole) {
      try {
        const { candidate, events } = (await this.#goOn(run)) ?? (await this.#begin(run));
        const { broken } = run;
        try {
          yield* events;
          if (broken !== null) this.#count('resumed');
        } catch (thrown) {
          if (broken !== null) this.#count(progress.gave ? 'resumed' : 'failed');
          this.#failed(run, candidate, toMeshError(thrown));
          if (progress.emitted.isWhole && run.broken !== null) yield* this.#endHere(progress);
        }
      } catch (thrown) {
        nextModel(run, toMeshError(thrown), this.#components.clock.now());
      }
    }
  }

  /** An attempt that begins the answer. @throws MeshError when nobody can be asked. */
  async #begin(run: Run): Promise<Attempt> {
    let choice = this.#choose(run, { tried: run.tried });
    if (choice.selection === null && this.#mayLookFurther(run)) {
      await this.#components.router.lookFurther(run.chain.request.model, run.options.signal);
      choice = this.#choose(run, { tried: run.tried });
    }
    if (
      choice.selection === null &&
      (await mayAskAgain(run, choice.none.within, { ...this.#components, ...this.#options }))
    )
      choice = this.#choose(run, { tried: run.tried });
    // Whoever was chosen is counted in the same turn.
    if (choice.selection === null)
      choice = await new ReturnWait(this.#components, run).choose(choice, () =>
        this.#choose(run, { tried: run.tried }),
      );
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
    return this.#attempt(run, selection, choice.none.within);
  }

  /**
   * An attempt that goes on with the answer; null when there is nothing to go on with, or nobody, and it may begin anew.
   *
   * @throws MeshError when there is nobody and it may not.
   */
  async #goOn(run: Run): Promise<Attempt | null> {
    const { broken, progress, options } = run;
    const { clock } = this.#components;
    if (broken === null) return null;
    const patience = patienceOf(run, { now: clock.now(), ...this.#options });
    const until = clock.now() + TWIN_WAIT_MS;
    for (;;) {
      if (options.signal.aborted) throw clientClosed(options.signal);
      const { emitted, committed } = progress;
      let waitMs = broken.waitMs(emitted, { now: clock.now(), isShown: committed });
      const questions = broken.questions(emitted, clock.now());
      for (const question of patience.asksAgain ? questions : questions.slice(0, TWIN_QUESTIONS)) {
        const { selection, none } = this.#choose(run, question);
        if (selection !== null) return this.#attempt(run, selection, none.within);
        if (none.coolingOff) waitMs = Math.min(waitMs, none.retryInMs);
      }
      if (!patience.waits || clock.now() + waitMs > until) break;
      await sleep(clock, waitMs, options.signal).catch(() => {});
    }
    this.#count('no_twin');
    run.broken = null;
    this.#mayRestart(run, broken.failure);
    return null;
  }

  #choose(
    { chain: { request }, loadBalancing, trace }: Run,
    { tried, suits }: Pick<Question, 'tried' | 'suits'>,
  ): Choice {
    const { model, boundary = 'public' } = request;
    const { strategy } = loadBalancing;
    const candidates = this.#components.router.candidates(model);
    const question = { model, boundary, strategy, tried, ...(suits === undefined ? {} : { suits }) };
    const choice = this.#selector.choose(candidates, question);
    trace.candidates(choice.records, strategy);
    return choice;
  }

  /** Only when nobody within reach ever claimed the model: a lookup takes seconds. */
  #mayLookFurther({ chain, failure }: Run): boolean {
    const { model, boundary = 'public' } = chain.request;
    if (boundary === 'local' || failure !== null || chain.hasNext) return false;
    return !this.#components.router.candidates(model).some((candidate) => isWithin(boundary, candidate.boundary));
  }

  /** Nobody is left: the failure that the client would have seen without a retry, or why nobody could be asked. */
  #refusal({ chain, failure, loadBalancing }: Run, { none }: Choice): MeshError {
    if (failure !== null && failure.code !== 'model_not_loaded') return failure;
    const { boundary = 'public' } = chain.request;
    return refusalOf({ model: chain.label, boundary, loadBalancing: loadBalancing.enabled }, none);
  }

  /** In the same turn as the choice, so that the next choice sees that its backend is busier by one. */
  #attempt(run: Run, { candidate, permit, reason }: Selection, within: number): Attempt {
    const { stats, metrics, clock } = this.#components;
    const { backend } = candidate;
    const { options, progress, trace, broken, chain } = run;
    broken?.began();
    run.hasGoneOn = broken !== null;
    run.last = { candidate, startedAt: clock.now() };
    const request = broken === null ? chain.request : { ...chain.request, resume: progress.emitted.resume() };
    const { model, priority } = request;
    const record = new AttemptRecord(
      { metrics, permit, stats, trace: trace.attempt(backend.id, reasonAfter(run, reason), model) },
      { backend, model, priority },
    );
    const firstTokenTimeoutMs = firstTokenMs(run, candidate, within, this.#options);
    const { signal } = options;
    const events = attempt(request, { backend, record, progress, clock }, { signal, firstTokenTimeoutMs });
    return { candidate, events };
  }

  /** Decides what a failed attempt leads to; throws when it is the end. */
  #failed(run: Run, candidate: Candidate, failure: MeshError): void {
    const { router, logger, clock } = this.#components;
    const { options, progress, tried, broken } = run;
    const { request } = run.chain;
    const { gave } = progress;
    const now = clock.now();
    const { id, kind } = candidate.backend;
    logger.debug({ requestId: request.requestId, backend: id, code: failure.code, gave }, 'attempt failed');
    if (failure.code === 'model_not_loaded') router.forget(id, request.model);
    run.failure = failure;
    tried.add(id);
    // That a twin refuses to go on, for whatever reason, says nothing of others.
    const triesNext = !options.signal.aborted && (!gave || isContinuable(failure.code));
    if (broken !== null && triesNext) broken.broke(candidate, failure, { gave, now });
    else if (mayContinue(run, candidate, failure.code))
      run.broken = new BrokenAnswer(request, candidate, { failure, now });
    // What is here is served here: a full queue of our own is no reason to send its overflow to others.
    else this.#mayRestart(run, failure, kind === 'engine' && failure.code === 'overloaded');
  }

  /** The next attempt begins anew, unless something has gone out, or that was tried already. @throws MeshError the failure. */
  #mayRestart(run: Run, failure: MeshError, staysHere: boolean = false): void {
    const { progress, loadBalancing } = run;
    if (!isFree(failure)) run.costly += 1;
    if (progress.committed) throw lostAnswer(failure);
    const elsewhere = loadBalancing.failoverEnabled && ERROR_TABLE[failure.code].elsewhere && !staysHere;
    if (!elsewhere || run.costly >= MAX_ATTEMPTS) throw failure;
    progress.restart();
  }

  /** Nothing but the `end` was missing. */
  *#endHere(progress: Progress): Generator<InferenceEvent> {
    const { metrics } = this.#components;
    const end = progress.emitted.end();
    this.#count('ended');
    metrics.tokens.inc({ direction: 'prompt' }, end.usage.promptTokens);
    metrics.tokens.inc({ direction: 'completion' }, end.usage.completionTokens);
    progress.take(end);
    yield* progress.release();
    yield end;
  }

  /**
   * resumed: an attempt added to an answer that another began. failed: it added nothing. ended: only the end was missing.
   * no_twin: nobody could go on.
   */
  #count(outcome: 'resumed' | 'failed' | 'ended' | 'no_twin'): void {
    this.#components.metrics.continuations.inc({ outcome });
  }
}

/** Refusals that cost the refusing node nothing do not use up the retry. */
const isFree = (error: MeshError): boolean => error.code === 'model_not_loaded' || error.code === 'draining';
