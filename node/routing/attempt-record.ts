/** The one verdict of an attempt. */
import type { EndEvent } from '../../protocols/inference/events.ts';
import { ERROR_TABLE, type MeshError } from '../common/errors.ts';
import type { Metrics } from '../common/metrics.ts';
import type { Permit } from './circuit-breaker.ts';
import type { EndAttempt } from './routing-stats.ts';

/** Says once, at the end of an attempt, how it went: to the breaker, the statistics and the metrics. */
export class AttemptRecord {
  firstTokenMs: number | null = null;
  readonly #metrics: Metrics;
  readonly #backend: { readonly kind: string };
  readonly #permit: Permit;
  readonly #endCount: EndAttempt;
  #ended = false;

  constructor(metrics: Metrics, backend: { readonly kind: string }, permit: Permit, endCount: EndAttempt) {
    this.#metrics = metrics;
    this.#backend = backend;
    this.#permit = permit;
    this.#endCount = endCount;
  }

  succeeded(event: EndEvent): void {
    if (!this.#once('ok')) return;
    this.#permit.success();
    this.#endCount('success', this.firstTokenMs);
    this.#metrics.tokens.inc({ direction: 'prompt' }, event.usage.promptTokens);
    this.#metrics.tokens.inc({ direction: 'completion' }, event.usage.completionTokens);
    if (this.firstTokenMs !== null) {
      this.#metrics.timeToFirstToken.observe({ served_by: this.#backend.kind }, this.firstTokenMs / 1000);
    }
  }

  failed(error: MeshError): void {
    if (!this.#once(error.code)) return;
    const counts = ERROR_TABLE[error.code].breaker === 'failure';
    if (counts) this.#permit.failure();
    else this.#permit.neutral();
    this.#endCount(counts ? 'failure' : 'neutral', null);
  }

  /** The consumer stopped iterating. */
  abandoned(): void {
    if (!this.#once('client_closed')) return;
    this.#permit.neutral();
    this.#endCount('neutral', null);
  }

  #once(outcome: string): boolean {
    if (this.#ended) return false;
    this.#ended = true;
    this.#metrics.attempts.inc({ backend: this.#backend.kind, outcome });
    return true;
  }
}
