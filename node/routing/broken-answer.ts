/** An answer that broke off, and whom it may be gone on with. Pure. */
import type { InferenceRequest } from '../../protocols/inference/events.ts';
import type { ErrorCode, MeshError } from '../common/errors.ts';
import type { Candidate } from './candidate.ts';
import { isAway, isBusy, mayComeBack, twinFacts, twinOf } from './continuation.ts';
import type { EmittedAnswer } from './emitted-answer.ts';

/** Attempts to go on with one answer, whatever comes of them. */
const MOST_CONTINUATIONS = 8;
/** Wait for one that is busy and does not say for how long, and before one is asked again that was away twice. */
const PAUSE_MS = 1000;
/** How long an answer of which something has gone out waits for a peer to come back: a link that fails, a restart. */
const RETURN_MS = 5000;
/** How often it is looked whether one is back. */
const LOOK_MS = 250;

/** One way to look for a twin. */
export interface TwinQuestion {
  readonly tried: ReadonlySet<string>;
  readonly suits: (candidate: Candidate) => boolean;
}

/** One that failed since the answer last grew. */
interface Failed {
  readonly code: ErrorCode;
  /** It said, or it is plain, that it is worth waiting for until `againAt`. */
  readonly isAwaited: boolean;
  /** From when on it may be asked again when nobody else is left; Infinity: never. */
  readonly againAt: number;
}

export class BrokenAnswer {
  readonly #request: InferenceRequest;
  readonly #origin: Candidate;
  readonly #failed = new Map<string, Failed>();
  #failure: MeshError;
  #lastNode: string;
  #brokeAt: number;
  #continuations = 0;

  /** `origin` began it and failed with `failure` at the time `now`. */
  constructor(request: InferenceRequest, origin: Candidate, { failure, now }: { failure: MeshError; now: number }) {
    this.#request = request;
    this.#origin = origin;
    this.#failure = failure;
    this.#lastNode = origin.backend.id;
    this.#brokeAt = now;
    this.#note(origin.backend.id, failure, now);
  }

  /** Who gave the last part of it. */
  get lastNode(): string {
    return this.#lastNode;
  }

  /** How that one failed: what the client is told when nobody goes on. */
  get failure(): MeshError {
    return this.#failure;
  }

  /** Another model is asked from now on: nobody failed at that. */
  otherModel(): void {
    this.#failed.clear();
  }

  /** An attempt to go on begins. */
  began(): void {
    this.#continuations += 1;
  }

  /** An attempt to go on failed at the time `now`; `gave`: after it had added to the answer. */
  broke({ backend: { id } }: Candidate, failure: MeshError, { gave, now }: { gave: boolean; now: number }): void {
    if (gave) {
      this.#failed.clear();
      this.#failure = failure;
      this.#lastNode = id;
      this.#brokeAt = now;
    }
    this.#note(id, failure, now);
  }

  /**
   * Whom to ask now, the best first: those that come as far as where it began, those with less context, and at last those
   * that failed but may have come back. None once it was tried often enough, or when it cannot be gone on with.
   */
  questions(emitted: EmittedAnswer, now: number): readonly TwinQuestion[] {
    const facts = twinFacts(emitted, this.#origin, this.#request);
    if (facts === null || this.#continuations >= MOST_CONTINUATIONS) return [];
    const tried = new Set(this.#failed.keys());
    const away = new Set([...this.#failed].filter(([, { againAt }]) => againAt > now).map(([id]) => id));
    return [
      { tried, suits: (candidate) => twinOf(candidate, facts) === 'full' },
      { tried, suits: (candidate) => twinOf(candidate, facts) === 'short' },
      { tried: away, suits: (candidate) => twinOf(candidate, facts) !== null },
    ];
  }

  /**
   * Milliseconds after which it is worth asking again when nobody could be asked now; Infinity when it is not.
   * `isShown`: something has gone out, so that nobody can begin anew.
   */
  waitMs(emitted: EmittedAnswer, { now, isShown }: { now: number; isShown: boolean }): number {
    let waitMs = Number.POSITIVE_INFINITY;
    const facts = twinFacts(emitted, this.#origin, this.#request);
    if (facts === null || this.#continuations >= MOST_CONTINUATIONS) return waitMs;
    const awaitsReturn = isShown && now - this.#brokeAt < RETURN_MS && twinOf(this.#origin, facts) !== null;
    for (const { code, againAt, isAwaited } of this.#failed.values()) {
      if (isAwaited && againAt > now) waitMs = Math.min(waitMs, againAt - now);
      if (awaitsReturn && isAway(code)) waitMs = Math.min(waitMs, LOOK_MS);
    }
    return waitMs;
  }

  #note(id: string, { code, facts }: MeshError, now: number): void {
    // An engine that rests after a crash says for how long.
    const isAwaited = isBusy(code) || (mayComeBack(code) && facts.retryAfterMs !== undefined);
    const pauseMs = isAwaited ? (facts.retryAfterMs ?? PAUSE_MS) : this.#pauseMs(id, code);
    this.#failed.set(id, { code, isAwaited, againAt: now + pauseMs });
  }

  /** A child that crashed and a server that failed get one more try, a peer whose link failed more than one. */
  #pauseMs(id: string, code: ErrorCode): number {
    if (!mayComeBack(code)) return Number.POSITIVE_INFINITY;
    if (!this.#failed.has(id)) return 0;
    return isAway(code) ? PAUSE_MS : Number.POSITIVE_INFINITY;
  }
}
