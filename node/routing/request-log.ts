/** The last requests, each with what was chosen and why: a bounded ring in memory. No prompts, no answers. */
import type { InferenceRequest } from '../../protocols/inference/events.ts';
import type { Clock } from '../common/clock.ts';
import type { ErrorCode } from '../common/errors.ts';
import type { DispatchOptions } from './dispatch.ts';
import type { AttemptRecordView, CandidateRecord, RequestRecord } from './request-record.ts';

export interface RequestLogComponents {
  readonly clock: Clock;
  /** Unix milliseconds. Default `Date.now`. */
  readonly wallClock?: () => number;
}

/** Requests kept; the oldest goes first. */
const KEPT = 1000;
/** Characters kept of what clients name themselves. */
const NAME_CHARS = 200;

/** What a client named, and the models that it stands for. */
interface NamedModel {
  readonly asked: string;
  readonly models: readonly string[];
}

type Outcome = ErrorCode | 'ok';

/** The record of one request while it is made. */
export interface RequestTrace {
  candidates(records: readonly CandidateRecord[], strategy: string): void;
  /** An attempt began. */
  attempt(backend: string, reason: string, model: string): AttemptTrace;
  /** The request is over; later calls do nothing. */
  end(outcome: Outcome): void;
}

/** The record of one attempt while it is made. */
export interface AttemptTrace {
  /** The first token came. */
  firstToken(): void;
  end(outcome: Outcome): void;
}

type Writable<T> = { -readonly [K in keyof T]: T[K] };

export class RequestLog {
  readonly #clock: Clock;
  readonly #wallClock: () => number;
  readonly #kept: number;
  readonly #byId = new Map<string, RequestRecord>();
  readonly #idByLabel = new Map<string, string>();

  constructor(components: RequestLogComponents, options: { readonly kept: number } = { kept: KEPT }) {
    this.#clock = components.clock;
    this.#wallClock = components.wallClock ?? Date.now;
    this.#kept = options.kept;
  }

  /** The request of this id, or the last one whose client saw this `x-request-id`; null when it is none of the kept. */
  get(idOrLabel: string): RequestRecord | null {
    return this.#byId.get(idOrLabel) ?? this.#byId.get(this.#idByLabel.get(idOrLabel) ?? '') ?? null;
  }

  /** `named`: what the client named, and what that stands for. Default: the request's model. */
  begin(
    request: InferenceRequest,
    { stream, label = request.requestId }: DispatchOptions,
    named: NamedModel = { asked: request.model, models: [request.model] },
  ): RequestTrace {
    const { requestId, kind, boundary = 'public' } = request;
    const startedAt = this.#clock.now();
    const attempts: AttemptRecordView[] = [];
    const isAlias = named.models.length > 1 || named.models[0] !== named.asked;
    const record: Writable<RequestRecord> = {
      requestId,
      label: label.slice(0, NAME_CHARS),
      kind,
      model: named.asked.slice(0, NAME_CHARS),
      ...(isAlias ? { chain: named.models } : {}),
      stream,
      boundary,
      strategy: '',
      startedAt: this.#wallClock(),
      durationMs: null,
      candidates: [],
      attempts,
      outcome: null,
    };
    this.#keep(record);
    const sinceStart = (): number => this.#clock.now() - startedAt;
    return {
      candidates: (records, strategy) => {
        record.candidates = records;
        record.strategy = strategy;
      },
      attempt: (backend, reason, model) => {
        const attempt: Writable<AttemptRecordView> = {
          backend,
          ...(isAlias ? { model } : {}),
          startedMs: sinceStart(),
          firstTokenMs: null,
          endedMs: null,
          outcome: null,
          reason,
        };
        attempts.push(attempt);
        return {
          firstToken: () => {
            attempt.firstTokenMs = sinceStart();
          },
          end: (outcome) => {
            attempt.endedMs = sinceStart();
            attempt.outcome = outcome;
          },
        };
      },
      end: (outcome) => {
        if (record.outcome !== null) return;
        record.durationMs = sinceStart();
        record.outcome = outcome;
      },
    };
  }

  #keep(record: RequestRecord): void {
    this.#byId.delete(record.requestId);
    this.#byId.set(record.requestId, record);
    this.#idByLabel.set(record.label, record.requestId);
    for (const [id, { label }] of this.#byId) {
      if (this.#byId.size <= this.#kept) return;
      this.#byId.delete(id);
      if (this.#idByLabel.get(label) === id) this.#idByLabel.delete(label);
    }
  }
}
