/** Who has a slot of a model's engine and who waits, first come, first served. */
import { MeshError } from '../../common/errors.ts';
import type { Answer } from './answer.ts';

/** What a client refused by a full queue is told to wait. */
const FULL_QUEUE_RETRY_MS = 2_000;

export interface AdmissionOptions {
  /** Slots. */
  readonly parallel: number;
  /** Requests that wait when all slots are taken. */
  readonly queueLimit: number;
}

export class Admission {
  readonly #options: AdmissionOptions;
  /** By id; an answer that is over keeps its slot until the child says that it is free. */
  readonly #running = new Map<number, Answer>();
  readonly #queue: Answer[] = [];
  #lastId = 0;
  #onIdle: () => void = () => {};

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  get inFlight(): number {
    return this.#running.size;
  }

  get queued(): number {
    return this.#queue.length;
  }

  /** @throws MeshError `overloaded` when slots and queue are full. */
  enqueue(answer: Answer): void {
    const { parallel, queueLimit } = this.#options;
    const free = Math.max(0, parallel - this.#running.size);
    if (this.#queue.length >= free + queueLimit) {
      throw new MeshError('overloaded', `The queue of this model is full (${queueLimit} requests wait).`, {
        retryAfterMs: FULL_QUEUE_RETRY_MS,
      });
    }
    this.#queue.push(answer);
  }

  /** Gives the oldest waiting request a slot; null when none waits or none is free. */
  admit(): { readonly id: number; readonly answer: Answer } | null {
    if (this.#running.size >= this.#options.parallel) return null;
    const answer = this.#queue.shift();
    if (answer === undefined) return null;
    this.#lastId += 1;
    this.#running.set(this.#lastId, answer);
    return { id: this.#lastId, answer };
  }

  running(id: number): Answer | undefined {
    return this.#running.get(id);
  }

  /** Takes a waiting request out of the queue, or says which slot's id it has; null otherwise. */
  withdraw(answer: Answer): number | null {
    const waiting = this.#queue.indexOf(answer);
    if (waiting !== -1) this.#queue.splice(waiting, 1);
    for (const [id, running] of this.#running) if (running === answer) return id;
    this.#tellIdle();
    return null;
  }

  free(id: number): void {
    this.#running.delete(id);
    this.#tellIdle();
  }

  failRunning(error: MeshError): void {
    for (const answer of this.#running.values()) answer.fail(error);
    this.#running.clear();
    this.#tellIdle();
  }

  failQueued(error: MeshError): void {
    for (const answer of this.#queue.splice(0)) answer.fail(error);
    this.#tellIdle();
  }

  /** Resolves as soon as nothing runs and nothing waits. */
  idle(): Promise<void> {
    return new Promise((resolve) => {
      this.#onIdle = resolve;
      this.#tellIdle();
    });
  }

  #tellIdle(): void {
    if (this.#running.size === 0 && this.#queue.length === 0) this.#onIdle();
  }
}
