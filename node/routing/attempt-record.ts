/** The one verdict of an attempt. */
import type { EndEvent, InferenceEvent } from '../../protocols/inference/events.ts';
import type { BackendKind } from '../backends/backend.ts';
import type { MeshError } from '../common/errors.ts';
import type { Metrics } from '../common/metrics.ts';
import type { BackendPermit } from './backend-health.ts';
import type { AttemptTrace } from './request-log.ts';
import type { EndAttempt, RoutingStats } from './routing-stats.ts';

export interface AttemptRecordComponents {
  readonly metrics: Metrics;
  readonly permit: BackendPermit;
  readonly stats: RoutingStats;
  readonly trace: AttemptTrace;
}

export interface AttemptRecordOptions {
  readonly backend: { readonly id: string; readonly kind: BackendKind };
  readonly model: string;
  /** Nobody waits for a batch request: its times say nothing of how fast others are served. */
  readonly priority?: 'batch' | undefined;
}

/** One attempt from its selection on. Says once, at the end of an attempt, how it went: to breakers, statistics, metrics and the request's record. */
export class AttemptRecord {
  readonly #components: AttemptRecordComponents;
  readonly #options: AttemptRecordOptions;
  readonly #endCount: EndAttempt;
  #firstTokenMs: number | null = null;
  #ended = false;

  constructor(components: AttemptRecordComponents, options: AttemptRecordOptions) {
    this.#components = components;
    this.#options = options;
    this.#endCount = components.stats.begin(options.backend.id, options.model);
  }

  /** Takes note of an event, `afterMs` after the attempt began. Is it the first token? */
  saw(event: InferenceEvent, afterMs: number): boolean {
    if (event.type === 'end') this.#succeeded(event);
    else if (event.type !== 'chunk' && event.type !== 'result') this.#components.permit.reached();
    else if (this.#firstTokenMs === null) {
      this.#firstTokenMs = afterMs;
      if (!this.#isBatch) this.#components.stats.firstToken(this.#options.backend.id, this.#options.model, afterMs);
      this.#components.trace.firstToken();
      return true;
    }
    return false;
  }

  /** `cause`: what happened at the backend, whatever the client is told of it. */
  failed(cause: MeshError): void {
    if (!this.#once(cause.code)) return;
    this.#endCount(this.#components.permit.failed(cause) ? 'failure' : 'neutral', null);
  }

  /** The consumer stopped iterating. */
  abandoned(): void {
    if (!this.#once('client_closed')) return;
    this.#components.permit.released();
    this.#endCount('neutral', null);
  }

  #succeeded(event: EndEvent): void {
    if (!this.#once('ok')) return;
    const { metrics, permit } = this.#components;
    permit.succeeded();
    this.#endCount('success', this.#isBatch ? null : this.#firstTokenMs);
    metrics.tokens.inc({ direction: 'prompt' }, event.usage.promptTokens);
    metrics.tokens.inc({ direction: 'completion' }, event.usage.completionTokens);
    if (this.#firstTokenMs !== null && !this.#isBatch) {
      metrics.timeToFirstToken.observe({ served_by: this.#options.backend.kind }, this.#firstTokenMs / 1000);
    }
  }

  get #isBatch(): boolean {
    return this.#options.priority === 'batch';
  }

  #once(outcome: Parameters<AttemptTrace['end']>[0]): boolean {
    if (this.#ended) return false;
    this.#ended = true;
    this.#components.trace.end(outcome);
    this.#components.metrics.attempts.inc({ backend: this.#options.backend.kind, outcome });
    return true;
  }
}
