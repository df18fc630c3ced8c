/** How a server does, from what polls and requests showed. */
import type { Clock } from '../../common/clock.ts';
import type { MeshError } from '../../common/errors.ts';
import { AnswerTimeout } from './http-client.ts';

/**
 * online; busy: it answers, but takes no work now; suspect: it failed once just now; offline: not seen yet, or failed
 * again; unauthorized: it wants another key.
 */
export type ServerStatus = 'online' | 'busy' | 'suspect' | 'offline' | 'unauthorized';

const OFFLINE_AFTER = 2;
/** A server that refuses a request's key but lists its models to anybody: how long the refusal stands. */
const REFUSED_MS = 60_000;
const BUSY_MS = 5000;
/** llama-server while it reads its file. */
const LOADING = /answered 503: Loading model/i;
/** Even a server that asks for an hour is asked again after this. */
const MAX_BUSY_MS = 60_000;

/** What else is known when a poll ends. */
export interface ServerLoad {
  /** Requests that wait there, as it says itself. */
  readonly waiting: number;
  /** Answers of it that we are getting now. */
  readonly active: number;
}

const UNKNOWN_LOAD: ServerLoad = { waiting: 0, active: 0 };

/** A poll is a question for the model list, an answer is one to a client's request. */
export class ServerHealth {
  readonly #clock: Clock;
  #isSeen = false;
  #failures = 0;
  #unauthorizedPoll = false;
  #refusedUntil = Number.NEGATIVE_INFINITY;
  #busyUntil = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get status(): ServerStatus {
    const now = this.#clock.now();
    if (this.#unauthorizedPoll || now < this.#refusedUntil) return 'unauthorized';
    if (!this.#isSeen || this.#failures >= OFFLINE_AFTER) return 'offline';
    if (this.#failures > 0) return 'suspect';
    return now < this.#busyUntil ? 'busy' : 'online';
  }

  /** Failed polls one after the other. */
  get failures(): number {
    return this.#failures;
  }

  /** `error` null: the list came. Servers that answer one after the other keep a poll waiting while they work for us. */
  polled(error: MeshError | null, { waiting, active }: ServerLoad = UNKNOWN_LOAD): void {
    if (error === null && waiting > 0) this.#busyUntil = this.#clock.now() + BUSY_MS;
    const isWorking = error instanceof AnswerTimeout && active > 0;
    if (isWorking) this.#busyUntil = this.#clock.now() + BUSY_MS;
    const isBusy = isWorking || (error !== null && this.#noteBusy(error));
    this.#unauthorizedPoll = error !== null && isRefusal(error);
    const isAlive = error === null || isBusy || this.#unauthorizedPoll;
    this.#failures = isAlive ? 0 : this.#failures + 1;
    this.#isSeen ||= isAlive;
  }

  /** Returns whether the server should be polled at once to learn more. */
  answered(error: MeshError | null): boolean {
    if (error === null) {
      this.#isSeen = true;
      this.#failures = 0;
      this.rekeyed();
      this.#busyUntil = Number.NEGATIVE_INFINITY;
      return false;
    }
    this.#noteBusy(error);
    if (isRefusal(error)) this.#refusedUntil = this.#clock.now() + REFUSED_MS;
    if (error.code !== 'peer_unreachable') return false;
    this.#failures = Math.max(this.#failures, 1);
    return true;
  }

  /** Another key is shown from now on. */
  rekeyed(): void {
    this.#unauthorizedPoll = false;
    this.#refusedUntil = Number.NEGATIVE_INFINITY;
  }

  #noteBusy({ code, facts, message }: MeshError): boolean {
    const saysWhen = facts.httpStatus === 503 && facts.retryAfterMs !== undefined;
    const isBusy = code === 'rate_limited' || code === 'draining' || saysWhen || LOADING.test(message);
    if (isBusy) this.#busyUntil = this.#clock.now() + Math.min(facts.retryAfterMs ?? BUSY_MS, MAX_BUSY_MS);
    return isBusy;
  }
}

const isRefusal = ({ code }: MeshError): boolean => code === 'unauthorized' || code === 'forbidden';
