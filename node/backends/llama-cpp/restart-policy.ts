/** When a failed engine child may be started again, decided from the times of its failures. Pure. */
import { MeshError } from '../../common/errors.ts';

const FIRST_DELAY_MS = 1_000;
const MOST_DELAY_MS = 60_000;
/** Failures longer ago than this no longer lengthen the delay. */
const DELAY_MEMORY_MS = 30 * 60_000;
const QUARANTINE_FAILURES = 3;
const QUARANTINE_WINDOW_MS = 5 * 60_000;
/** A quarantined model gets another chance after this: the cause may have been the machine's. */
const QUARANTINE_MS = 15 * 60_000;

export interface RestartDecision {
  /** On the clock of the failures' times. */
  readonly notBefore: number;
  readonly quarantined: boolean;
}

export class RestartPolicy {
  #failures: number[] = [];

  /** Notes a failure at `now` and says when the next start may be: after 1, 2, 4 … 60 s, much later after three in five minutes. */
  failed(now: number): RestartDecision {
    this.#failures = [...this.#failures.filter((at) => now - at < DELAY_MEMORY_MS), now];
    const recent = this.#failures.filter((at) => now - at < QUARANTINE_WINDOW_MS).length;
    if (recent >= QUARANTINE_FAILURES) return { notBefore: now + QUARANTINE_MS, quarantined: true };
    const delayMs = Math.min(MOST_DELAY_MS, FIRST_DELAY_MS * 2 ** (this.#failures.length - 1));
    return { notBefore: now + delayMs, quarantined: false };
  }
}

/** What those are told who ask for a quarantined model. */
export function quarantineError(error: MeshError): MeshError {
  const code = error.code === 'out_of_memory' ? error.code : 'engine_failed';
  return new MeshError(code, `${error.message} It failed three times in five minutes and is left alone for a while.`);
}
