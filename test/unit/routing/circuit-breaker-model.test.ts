/** The breaker against a reference machine: any course of attempts, verdicts, pauses and forgiving. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CircuitBreaker, DEFAULT_BREAKER, type Permit } from '../../../node/routing/circuit-breaker.ts';
import fc from '../../support/fc.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const { failureThreshold, resetTimeoutMs, probeLeaseMs } = DEFAULT_BREAKER;

/** The reference: what a breaker is, said as plainly as possible. */
interface Reference {
  now: number;
  state: 'closed' | 'open' | 'half-open';
  /** Times of consecutive counted failures. */
  failures: number[];
  openUntil: number;
  leaseUntil: number;
  /** A circuit that a probe found broken. */
  reopened: boolean;
  /** Attempts without a verdict, in the order of their permits; `era` is the state in which each began, `counted` the failures before it. */
  attempts: { id: number; era: number; counted: number }[];
  era: number;
  /** Failures that counted, ever. */
  counted: number;
  nextId: number;
}

interface Real {
  readonly clock: ManualClock;
  readonly breaker: CircuitBreaker;
  readonly permits: Map<number, Permit>;
  /** Id of the probe that holds the lease; null without one. */
  probe: number | null;
}

type Command = fc.Command<Reference, Real>;

const FRESH: () => Reference = () => ({
  now: 0,
  state: 'closed',
  failures: [],
  openUntil: 0,
  leaseUntil: 0,
  reopened: false,
  attempts: [],
  era: 0,
  counted: 0,
  nextId: 0,
});

function enter(model: Reference, state: Reference['state']): void {
  model.state = state;
  model.era += 1;
}

function agree(model: Reference, { breaker }: Real): void {
  const view = breaker.view();
  assert.equal(view.state, model.state);
  assert.equal(view.open, model.state === 'open');
  assert.equal(view.consecutiveFailures, model.failures.length);
  if (model.state !== 'closed') assert.ok(model.failures.length >= failureThreshold, 'open with too few failures');
}

class Acquire implements Command {
  readonly check = (): boolean => true;
  run(model: Reference, real: Real): void {
    const due = model.state === 'open' && model.now >= model.openUntil;
    const leaseLost = model.state === 'half-open' && model.now >= model.leaseUntil;
    const expected = model.state === 'closed' || due || leaseLost;
    assert.equal(real.breaker.admits(), expected);
    const permit = real.breaker.acquire();
    assert.equal(permit !== null, expected);
    if (permit === null) return;
    if (model.state !== 'closed') {
      assert.ok(real.probe === null || leaseLost, 'two probes in flight');
      enter(model, 'half-open');
      model.leaseUntil = model.now + probeLeaseMs;
      real.probe = model.nextId;
    }
    real.permits.set(model.nextId, permit);
    model.attempts.push({ id: model.nextId++, era: model.era, counted: model.counted });
    agree(model, real);
  }
  readonly toString = (): string => 'acquire';
}

class Verdict implements Command {
  readonly #verdict: 'success' | 'failure' | 'neutral';
  readonly #which: number;
  constructor(verdict: 'success' | 'failure' | 'neutral', which: number) {
    this.#verdict = verdict;
    this.#which = which;
  }
  readonly check = (model: Readonly<Reference>): boolean => model.attempts.length > 0;
  run(model: Reference, real: Real): void {
    const [attempt] = model.attempts.splice(this.#which % model.attempts.length, 1);
    assert.ok(attempt !== undefined);
    const wasOpen = model.state !== 'closed';
    real.permits.get(attempt.id)?.[this.#verdict]();
    real.permits.get(attempt.id)?.failure();
    if (real.probe === attempt.id) real.probe = null;
    if (attempt.era === model.era) this.#apply(model, attempt.counted);
    if (wasOpen && model.state === 'closed') assert.equal(this.#verdict, 'success', 'closed without a success');
    agree(model, real);
  }
  #apply(model: Reference, countedBefore: number): void {
    if (this.#verdict === 'success') {
      model.failures = [];
      if (model.state !== 'closed') enter(model, 'closed');
    } else if (this.#verdict === 'failure') {
      if (countedBefore !== model.counted) return;
      model.counted += 1;
      model.failures.push(model.now);
      if (model.state === 'closed' && model.failures.length < failureThreshold) return;
      model.reopened = model.state === 'half-open';
      model.openUntil = model.now + resetTimeoutMs;
      enter(model, 'open');
    } else if (model.state === 'half-open') {
      model.reopened = true;
      model.openUntil = model.now;
      enter(model, 'open');
    }
  }
  readonly toString = (): string => `${this.#verdict} of ${this.#which}`;
}

class Advance implements Command {
  readonly #ms: number;
  constructor(ms: number) {
    this.#ms = ms;
  }
  readonly check = (): boolean => true;
  run(model: Reference, { clock }: Real): void {
    model.now += this.#ms;
    clock.advance(this.#ms);
  }
  readonly toString = (): string => `advance ${this.#ms}`;
}

class Forgive implements Command {
  readonly #agoMs: number;
  constructor(agoMs: number) {
    this.#agoMs = agoMs;
  }
  readonly check = (): boolean => true;
  run(model: Reference, real: Real): void {
    const since = model.now - this.#agoMs;
    real.breaker.forgive(since);
    const kept = model.failures.filter((at) => at < since);
    const counts = model.state === 'closed' || (model.state === 'open' && !model.reopened);
    if (counts && kept.length < model.failures.length) {
      model.failures = kept;
      if (model.state === 'open') enter(model, 'closed');
    }
    agree(model, real);
  }
  readonly toString = (): string => `forgive ${this.#agoMs}`;
}

class Returned implements Command {
  readonly check = (): boolean => true;
  run(model: Reference, real: Real): void {
    real.breaker.returned();
    if (model.state === 'open') {
      model.failures = new Array<number>(failureThreshold - 1).fill(Number.NEGATIVE_INFINITY);
      enter(model, 'closed');
    }
    agree(model, real);
  }
  readonly toString = (): string => 'returned';
}

const COMMANDS: fc.Arbitrary<Command>[] = [
  fc.constant(new Returned()),
  fc.constant(new Acquire()),
  fc
    .tuple(fc.constantFrom('success' as const, 'failure' as const, 'failure' as const, 'neutral' as const), fc.nat(20))
    .map(([verdict, which]) => new Verdict(verdict, which)),
  fc
    .oneof(fc.integer({ min: 1, max: 70_000 }), fc.constant(resetTimeoutMs), fc.constant(probeLeaseMs))
    .map((ms) => new Advance(ms)),
  fc.nat(2000).map((agoMs) => new Forgive(agoMs)),
];

test('D-17 D-18 D-19 in any course of events the breaker is the reference machine, and always reaches half-open', () => {
  fc.assert(
    fc.property(fc.commands(COMMANDS, { maxCommands: 150, size: 'max' }), (commands) => {
      const clock = new ManualClock();
      const real: Real = { clock, breaker: new CircuitBreaker({ clock }), permits: new Map(), probe: null };
      fc.modelRun(() => ({ model: FRESH(), real }), commands);
      // However it was left: every client goes away, the time passes, and an attempt is possible.
      for (const permit of real.permits.values()) permit.neutral();
      clock.advance(resetTimeoutMs);
      assert.notEqual(real.breaker.acquire(), null);
    }),
    { numRuns: 500 },
  );
});
