/** What a request waits for that nobody can answer at this moment: a peer that was lost just now, a circuit about to close. */
import { type Clock, sleep } from '../common/clock.ts';
import type { Candidate } from './candidate.ts';
import type { Run } from './run.ts';
import { type Choice, isWithin, type NoSelection } from './selector.ts';

export interface ReturnWaitComponents {
  readonly clock: Clock;
  readonly router: {
    candidates(modelId: string): readonly Candidate[];
    /** Did a peer that has the model fall silent so lately that it may be back at once? Default: nobody did. */
    isAwaited?(modelId: string): boolean;
  };
}

/** Longest wait of one attempt that cannot begin. */
const LONGEST_MS = 5000;
/** How often it is looked whether one is back. */
const LOOK_MS = 100;

/**
 * Of one attempt. A peer that failed the request is asked again only when it was gone meanwhile: what comes back is not
 * the connection that broke.
 */
export class ReturnWait {
  readonly #run: Run;
  readonly #components: ReturnWaitComponents;
  readonly #until: number;
  /** Of those that failed, who was silent or gone since. */
  readonly #gone = new Set<string>();

  constructor(components: ReturnWaitComponents, run: Run) {
    this.#components = components;
    this.#run = run;
    this.#until = components.clock.now() + LONGEST_MS;
  }

  /** The choice as it was, or as `again` makes it after a wait. Never rejects. */
  async choose(first: Choice, again: () => Choice): Promise<Choice> {
    let choice = first;
    while (choice.selection === null && (await this.#wait(choice.none))) choice = again();
    return choice;
  }

  /** Waits a little; false: there is nothing to wait for. `none`: why nobody could be asked. */
  async #wait(none: NoSelection): Promise<boolean> {
    const { clock } = this.#components;
    const { chain, failure, loadBalancing, options } = this.#run;
    const mayLeave = loadBalancing.enabled && isWithin(chain.request.boundary ?? 'public', 'mesh');
    // Another model of the chain answers sooner.
    if (!mayLeave || chain.hasNext || options.signal.aborted) return false;
    if (failure !== null && !loadBalancing.failoverEnabled) return false;
    // It has said when to come back, and does not mean seconds.
    if (failure?.code === 'model_starting') return false;
    // 0 while a probe is under way, which may take as long as an answer.
    const isNear = !none.coolingOff && none.retryInMs > 0 && clock.now() + none.retryInMs <= this.#until;
    const waitMs = this.#look() ? LOOK_MS : isNear ? Math.max(LOOK_MS, none.retryInMs) : Number.POSITIVE_INFINITY;
    if (clock.now() + waitMs > this.#until) return false;
    await sleep(clock, waitMs, options.signal).catch(() => {});
    this.#look();
    return true;
  }

  /** Notes who is back. Is somebody awaited? */
  #look(): boolean {
    const { router } = this.#components;
    const { chain, tried } = this.#run;
    const { model } = chain.request;
    const here = new Map(router.candidates(model).map((candidate) => [candidate.backend.id, candidate]));
    let isAwaited = router.isAwaited?.(model) === true;
    for (const id of [...tried]) {
      const candidate = here.get(id);
      if (candidate === undefined || candidate.suspect) this.#gone.add(id);
      else if (this.#gone.delete(id)) tried.delete(id);
      if (candidate?.suspect === true) isAwaited = true;
    }
    return isAwaited;
  }
}
