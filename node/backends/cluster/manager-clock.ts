/** How far the clock here is from a manager's, which takes signatures of within 15 minutes only. */

/** A manager refuses what is dated further away than this, ms. */
const WINDOW_MS = 15 * 60_000;
/** `Date` headers have whole seconds, and answers take a moment. */
const SLACK_MS = 10_000;
/** Further away no date is taken over: signatures for days to come would be worth stealing. */
const MAX_CORRECTION_MS = 26 * 3_600_000;

export class ManagerClock {
  readonly #now: () => number;
  #offsetMs = 0;
  #appliedMs = 0;

  /** `now`: Unix milliseconds. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** What the next request is dated. */
  date(): Date {
    return new Date(this.#now() + this.#appliedMs);
  }

  /** Manager's clock minus ours, milliseconds, as its last answer showed; 0 before. */
  get offsetMs(): number {
    return this.#offsetMs;
  }

  /** Would requests be refused for their date, were they dated by the clock here? */
  get isSkewed(): boolean {
    return Math.abs(this.#offsetMs) > WINDOW_MS - SLACK_MS;
  }

  /** Takes note of the `Date` header of an answer; what is no date is ignored. */
  heard(header: string | undefined): void {
    const at = Date.parse(header ?? '');
    if (Number.isFinite(at)) this.#offsetMs = at - this.#now();
  }

  /** After a refusal: dates by the manager's clock from now on. Returns whether that can make a difference. */
  correct(): boolean {
    const wanted = this.isSkewed && Math.abs(this.#offsetMs) <= MAX_CORRECTION_MS ? this.#offsetMs : 0;
    if (Math.abs(wanted - this.#appliedMs) <= SLACK_MS) return false;
    this.#appliedMs = wanted;
    return true;
  }

  /** For people: `the clock here is 17 min ahead of lab's`; null while the two agree well enough. */
  sentence(name: string): string | null {
    if (!this.isSkewed) return null;
    const minutes = Math.round(Math.abs(this.#offsetMs) / 60_000);
    return `the clock here is ${minutes} min ${this.#offsetMs < 0 ? 'ahead of' : 'behind'} ${name}'s`;
  }
}
