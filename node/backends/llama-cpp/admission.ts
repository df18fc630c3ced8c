/** Who has a slot of a model's engine and who waits, first come, first served. */
import { MeshError } from '../../common/errors.ts';
import type { Answer } from './answer.ts';
import type { FromChild, StepEnd } from './ipc.ts';

/** What a client refused by a full queue is told to wait. */
const FULL_QUEUE_RETRY_MS = 2_000;

/** What a child says of one order, or of several. */
export type OrderMessage = FromChild & { type: 'accepted' | 'refused' | 'released' | 'step' | 'result' };

export interface AdmissionOptions {
  /** Slots. */
  readonly parallel: number;
  /** Requests that wait when all slots are taken. */
  readonly queueLimit: number;
}

/** Batch work waits behind all others. */
const isBatch = ({ order }: Answer): boolean => order.isBatch === true;

export class Admission {
  readonly #options: AdmissionOptions;
  /** By id; an answer that is over keeps its slot until the child says that it is free. */
  readonly #running = new Map<number, Answer>();
  readonly #queue: Answer[] = [];
  #lastId = 0;

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  get inFlight(): number {
    return this.#running.size;
  }

  /** Nothing runs and nothing waits. */
  get isIdle(): boolean {
    return this.#running.size === 0 && this.#queue.length === 0;
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
    const firstBatch = isBatch(answer) ? -1 : this.#queue.findIndex(isBatch);
    if (firstBatch === -1) this.#queue.push(answer);
    else this.#queue.splice(firstBatch, 0, answer);
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

  /** Hands a message of the child to the answers that it is about, and frees the slots that it ends; returns the ends. */
  hear(message: OrderMessage): readonly StepEnd[] {
    if (message.type === 'step') return this.#step(message);
    const answer = this.#running.get(message.id);
    if (message.type === 'accepted') {
      answer?.accept(message);
      return [];
    }
    if (message.type === 'result') answer?.result(message.result);
    if (message.type === 'refused') {
      const { code, message: text, param } = message;
      answer?.fail(new MeshError(code, text, param === undefined ? {} : { param }));
    }
    this.free(message.id);
    return [];
  }

  /** Takes a waiting request out of the queue, or says which slot's id it has; null otherwise. */
  withdraw(answer: Answer): number | null {
    const waiting = this.#queue.indexOf(answer);
    if (waiting !== -1) this.#queue.splice(waiting, 1);
    for (const [id, running] of this.#running) if (running === answer) return id;
    return null;
  }

  #step({ outputs }: OrderMessage & { type: 'step' }): readonly StepEnd[] {
    const ends: StepEnd[] = [];
    for (const output of outputs) {
      this.#running.get(output.id)?.step(output);
      if (output.end === undefined) continue;
      ends.push(output.end);
      this.free(output.id);
    }
    return ends;
  }

  free(id: number): void {
    this.#running.delete(id);
  }

  failRunning(error: MeshError): void {
    for (const answer of this.#running.values()) answer.fail(error);
    this.#running.clear();
  }

  failQueued(error: MeshError): void {
    for (const answer of this.#queue.splice(0)) answer.fail(error);
  }
}
