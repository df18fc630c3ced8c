/** One breaker for each backend, kept while the node lives, so that a flapping peer does not come back clean. */
import type { Clock } from '../common/clock.ts';
import { type BreakerOptions, CircuitBreaker, DEFAULT_BREAKER } from './circuit-breaker.ts';

export class Breakers {
  readonly #byBackend = new Map<string, CircuitBreaker>();
  readonly #clock: Clock;
  readonly options: BreakerOptions;

  constructor(components: { clock: Clock }, options: BreakerOptions = DEFAULT_BREAKER) {
    this.#clock = components.clock;
    this.options = options;
  }

  of(backendId: string): CircuitBreaker {
    let breaker = this.#byBackend.get(backendId);
    if (breaker === undefined) {
      breaker = new CircuitBreaker({ clock: this.#clock }, this.options);
      this.#byBackend.set(backendId, breaker);
    }
    return breaker;
  }
}
