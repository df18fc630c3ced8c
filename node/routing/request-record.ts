/** One dispatch as it can be explained later. Figures and names only: no prompts, no answers, no keys. */
import type { Boundary, InferenceKind } from '../../protocols/inference/events.ts';
import type { ErrorCode } from '../common/errors.ts';

/** One backend that had the model, in the order in which it was preferred. */
export interface CandidateRecord {
  /** Fingerprint. */
  readonly backend: string;
  readonly kind: 'engine' | 'peer' | 'http';
  readonly state: string;
  readonly priority: number;
  /** Of a federated model's target: the lowest is asked first, whatever the strategy. Absent: it has none. */
  readonly rank?: number;
  readonly activeRequests: number;
  /** What it reported itself; null before its first heartbeat. */
  readonly reportedLoad: number | null;
  /** Smoothed time to first token, milliseconds; null unmeasured. */
  readonly firstTokenMs: number | null;
  /** Why it was passed over; null when it could be chosen. */
  readonly skipped: 'circuit_open' | 'cooling_off' | 'boundary' | 'already_failed' | 'no_twin' | 'unauthorized' | null;
}

export interface AttemptRecordView {
  readonly backend: string;
  /** What it was asked for; absent where the request's `model` stands for no other. */
  readonly model?: string;
  /** Milliseconds after the dispatch. */
  readonly startedMs: number;
  readonly firstTokenMs: number | null;
  readonly endedMs: number | null;
  /** `ok`, an error code, or null while it runs. */
  readonly outcome: ErrorCode | 'ok' | null;
  /** One sentence: why this one was chosen. */
  readonly reason: string;
}

/** `GET /api/v1/requests/{id}`, `meshnode explain ID`. */
export interface RequestRecord {
  /** 32 hex digits. */
  readonly requestId: string;
  /** The `x-request-id` that the client got. */
  readonly label: string;
  readonly kind: InferenceKind;
  /** As the client named it. */
  readonly model: string;
  /** The models that it stands for, in the order in which they are asked; absent where it stands for no other. */
  readonly chain?: readonly string[];
  readonly stream: boolean;
  readonly boundary: Boundary;
  readonly strategy: string;
  /** Unix milliseconds. */
  readonly startedAt: number;
  readonly durationMs: number | null;
  /** As of the last choice. */
  readonly candidates: readonly CandidateRecord[];
  readonly attempts: readonly AttemptRecordView[];
  readonly outcome: ErrorCode | 'ok' | null;
}
