/**
 * One breaker for each backend and a lighter one for each model of a backend, so that one broken model does not hide a
 * healthy node. Kept while the node lives, so that a flapping peer does not come back clean.
 */
import type { Clock } from '../common/clock.ts';
import { type BreakerOptions, type BreakerView, CircuitBreaker, DEFAULT_BREAKER } from './circuit-breaker.ts';

/** Breakers kept before those without a failure are dropped. */
const KEPT = 1024;

const CLOSED: BreakerView = { state: 'closed', open: false, consecutiveFailures: 0, retryInMs: 0 };

/** The breakers of one backend. */
interface Group {
  readonly own: CircuitBreaker;
  readonly models: Map<string, CircuitBreaker>;
}

export class Breakers {
  readonly #groups = new Map<string, Group>();
  readonly #clock: Clock;
  readonly options: BreakerOptions;
  #size = 0;

  constructor(components: { clock: Clock }, options: BreakerOptions = DEFAULT_BREAKER) {
    this.#clock = components.clock;
    this.options = options;
  }

  /** The breaker of the backend as a whole: can it be reached, does it keep the protocol. */
  of(backendId: string): CircuitBreaker {
    return this.#group(backendId).own;
  }

  /** The breaker of one model there: does its engine run it. */
  ofModel(backendId: string, modelId: string): CircuitBreaker {
    const known = this.#groups.get(backendId)?.models.get(modelId);
    if (known !== undefined) return known;
    const made = this.#make();
    this.#group(backendId).models.set(modelId, made);
    return made;
  }

  /** Would both let an attempt through? Creates nothing. */
  admits(backendId: string, modelId: string): boolean {
    const group = this.#groups.get(backendId);
    return group === undefined || (group.own.admits() && group.models.get(modelId)?.admits() !== false);
  }

  /** The backend was away and is back. Creates nothing. */
  returned(backendId: string): void {
    this.#groups.get(backendId)?.own.returned();
  }

  /** State of the backend's own breaker. Creates nothing. */
  view(backendId: string): BreakerView {
    return this.#groups.get(backendId)?.own.view() ?? CLOSED;
  }

  /** Milliseconds until both may let a probe through. */
  retryInMs(backendId: string, modelId: string): number {
    const model = this.#groups.get(backendId)?.models.get(modelId)?.view() ?? CLOSED;
    return Math.max(this.view(backendId).retryInMs, model.retryInMs);
  }

  /** Breakers held now. */
  get size(): number {
    return this.#size;
  }

  #group(backendId: string): Group {
    let group = this.#groups.get(backendId);
    if (group === undefined) {
      group = { own: this.#make(), models: new Map() };
      this.#groups.set(backendId, group);
    }
    return group;
  }

  #make(): CircuitBreaker {
    if (this.#size >= KEPT) this.#dropIdle();
    this.#size += 1;
    return new CircuitBreaker({ clock: this.#clock }, this.options);
  }

  #dropIdle(): void {
    for (const [backendId, { own, models }] of this.#groups) {
      for (const [modelId, breaker] of models) if (breaker.isIdle() && models.delete(modelId)) this.#size -= 1;
      if (models.size === 0 && own.isIdle() && this.#groups.delete(backendId)) this.#size -= 1;
    }
  }
}
