/** The slots of one model and who waits for them. */
import type { Clock } from '../common/clock.ts';
import { MeshError } from '../common/errors.ts';
import { AdmissionQueue } from './admission-queue.ts';

/** A request's right to run, or its place among those that wait for it. */
export interface Ticket {
  /** The peer's fingerprint, or null for this node's own clients. */
  readonly from: string | null;
  /** Nobody waits for its answer: it waits behind all others, and leaves its slot to them. */
  readonly isBatch: boolean;
  readonly enteredAt: number;
  state: 'waiting' | 'running' | 'over';
  /** Why it never ran; set when it goes from `waiting` to `over`. */
  error: MeshError | null;
  /** Called once, when it no longer waits. */
  onSettled: () => void;
  /** Called at most once, while it runs: somebody who waits gets its slot, which it must leave. Batch only. */
  onYield: () => void;
}

export interface AdmissionLaneOptions {
  readonly queuePerSlot: number;
  readonly maxWaitMs: number;
}

/** Weight of the newest service time. */
const NEWEST = 0.2;
/** What those are told to wait whom nobody can predict a wait. */
const UNKNOWN_WAIT_MS = 2000;

export class AdmissionLane {
  readonly #clock: Clock;
  readonly #slots: () => number;
  readonly #options: AdmissionLaneOptions;
  readonly #queue = new AdmissionQueue<Ticket>();
  readonly #batchQueue = new AdmissionQueue<Ticket>();
  #running = 0;
  /** Those of the running ones that give their slot to whoever waits, the oldest first. */
  readonly #yieldable = new Set<Ticket>();
  readonly #yielding = new Set<Ticket>();
  /** Smoothed, of whole answers; null before the first. */
  #serviceMs: number | null = null;

  constructor(components: { readonly clock: Clock; readonly slots: () => number }, options: AdmissionLaneOptions) {
    this.#clock = components.clock;
    this.#slots = components.slots;
    this.#options = options;
  }

  get queued(): number {
    return this.#queue.size + this.#batchQueue.size;
  }

  /** Requests that run. */
  get running(): number {
    return this.#running;
  }

  get isIdle(): boolean {
    return this.#running === 0 && this.queued === 0;
  }

  /** A ticket that runs already or waits. @throws MeshError `overloaded`, at once, when waiting makes no sense. */
  enter(from: string | null, isBatch: boolean = false): Ticket {
    const ticket: Ticket = {
      from,
      isBatch,
      enteredAt: this.#clock.now(),
      state: 'waiting',
      error: null,
      onSettled: () => {},
      onYield: () => {},
    };
    if (isBatch) this.#refuseBatch(from);
    else if (this.#queue.size + this.#running - this.#yieldable.size >= this.#slots()) this.#makeRoom(from);
    this.#queueOf(ticket).add(ticket);
    this.pump();
    return ticket;
  }

  /** The request is over; `servedMs`: how long a whole answer took, from its acceptance. Idempotent. */
  leave(ticket: Ticket, servedMs: number | null = null): void {
    if (ticket.state === 'waiting') this.#queueOf(ticket).remove(ticket);
    if (ticket.state === 'running') {
      this.#running -= 1;
      this.#yieldable.delete(ticket);
      this.#yielding.delete(ticket);
      // A batch answer stands still while others run: its time says nothing of theirs.
      if (servedMs !== null && !ticket.isBatch) {
        const before = this.#serviceMs ?? servedMs;
        this.#serviceMs = before + NEWEST * (servedMs - before);
      }
    }
    ticket.state = 'over';
    this.pump();
  }

  /** Takes the ticket out of the queue for this reason; nothing when it does not wait any more. */
  refuse(ticket: Ticket, error: MeshError): void {
    if (this.#queueOf(ticket).remove(ticket)) settle(ticket, 'over', error);
  }

  refuseWaiting(which: 'all' | 'peers', error: MeshError): void {
    const waiting = [...this.#queue.drain(which), ...this.#batchQueue.drain(which)];
    for (const ticket of waiting) settle(ticket, 'over', error);
  }

  /** `overloaded`, with when it makes sense to come back. */
  overloaded(from: string | null): MeshError {
    const retryAfterMs = Math.max(1, Math.ceil(this.#predictedMs(from) ?? UNKNOWN_WAIT_MS));
    return new MeshError('overloaded', 'Too many requests wait for this model here', { retryAfterMs });
  }

  /** Lets in as many as there are slots; has batch answers make room for those that are left. */
  pump(): void {
    while (this.#running < this.#slots()) {
      const next = this.#queue.take() ?? this.#batchQueue.take();
      if (next === null) return;
      this.#running += 1;
      if (next.isBatch) this.#yieldable.add(next);
      settle(next, 'running', null);
    }
    // The youngest has least to lose.
    for (const ticket of [...this.#yieldable].toReversed()) {
      if (this.#yielding.size >= this.#queue.size) return;
      if (this.#yielding.has(ticket)) continue;
      this.#yielding.add(ticket);
      ticket.onYield();
    }
  }

  #queueOf({ isBatch }: Ticket): AdmissionQueue<Ticket> {
    return isBatch ? this.#batchQueue : this.#queue;
  }

  #refuseBatch(from: string | null): void {
    const slots = this.#slots();
    if (this.#running >= slots && this.#batchQueue.size >= this.#options.queuePerSlot * slots)
      throw this.overloaded(from);
  }

  #makeRoom(from: string | null): void {
    const { queuePerSlot, maxWaitMs } = this.#options;
    if ((this.#predictedMs(from) ?? 0) > maxWaitMs) throw this.overloaded(from);
    if (this.#queue.size < queuePerSlot * this.#slots()) return;
    const yielding = this.#queue.yielding(from);
    if (yielding === null) throw this.overloaded(from);
    this.refuse(yielding, this.overloaded(yielding.from));
  }

  /** How long one more of `from` would wait; null before anything was measured. */
  #predictedMs(from: string | null): number | null {
    return this.#serviceMs === null ? null : (this.#serviceMs * this.#queue.place(from)) / this.#slots();
  }
}

function settle(ticket: Ticket, state: 'running' | 'over', error: MeshError | null): void {
  ticket.state = state;
  ticket.error = error;
  ticket.onSettled();
}
