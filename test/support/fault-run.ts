/** The rows of the fault programme on one mesh: questions with known answers, their ledgers, and a table at the end. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Asked } from './fault-asker.ts';
import { type FaultMesh, until } from './fault-mesh.ts';
import { type FaultModel, FaultQuestions } from './fault-questions.ts';
import { Ledger, type Question, type Receipt, type Totals } from './ledger.ts';

/** The machines of the fault rows: who asks, the scripted twins and the twins with the demo model. */
export const ASKING = 0;
export const SCRIPTED: readonly [number, number] = [1, 2];
export const REAL: readonly [number, number] = [3, 4];

/** Of the node's circuit breakers. */
const FAILURES_THAT_OPEN = 3;

/** What a row expects of its answers beyond the promises that always hold. */
export interface Expectation {
  /** Clean errors: only where no twin lives. Default `none`. */
  readonly errors?: 'none' | 'allowed';
  /** Connections that end without a word: only where the asking node itself dies. Default `none`. */
  readonly broken?: 'none' | 'allowed';
}

export class FaultRun {
  readonly #mesh: () => FaultMesh;
  readonly #questions = new FaultQuestions();
  readonly #verdicts: string[] = [];
  readonly #lines: string[] = [];
  /** Attempts that failed in the present row, at least. */
  #failures = 0;

  /** The mesh is made in a `before` hook, so it is asked for each time. */
  constructor(mesh: () => FaultMesh) {
    this.#mesh = mesh;
  }

  /** Registers one row as a test; afterwards everything is mended and idle again. */
  row(name: string, body: (mesh: FaultMesh) => Promise<void>): void {
    test(`fault ${name}`, async () => {
      const mesh = this.#mesh();
      await this.#warm();
      const startedAt = performance.now();
      this.#lines.length = 0;
      this.#failures = 0;
      let verdict = 'FAILED';
      try {
        await body(mesh);
        await mesh.restore();
        await mesh.quiet();
        assert.deepEqual(mesh.unowned(), []);
        verdict = 'ok';
      } finally {
        const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
        this.#verdicts.push([`${verdict.padEnd(7)} fault ${name} (${seconds} s)`, ...this.#lines].join('\n          '));
        await mesh.restore();
        // The next row begins with closed circuits, whatever this one did.
        if (this.#failures >= FAILURES_THAT_OPEN) await mesh.restart(ASKING);
      }
    });
  }

  table(): string {
    return ['', ...this.#verdicts].join('\n');
  }

  /** Hears the answers of the demo model on undisturbed nodes. */
  learn(): Promise<void> {
    return this.#questions.learn(this.#mesh(), REAL);
  }

  /** Both engine children run, and the asking node knows: an answer that waits for a model to load is another matter. */
  async #warm(): Promise<void> {
    const mesh = this.#mesh();
    for (const machine of REAL) {
      const [question] = this.questions('demo', 1, { local: true });
      if (question !== undefined) assert.equal((await mesh.ask(question, machine).receipt).error, null);
    }
    await until('the asking node sees both models loaded', async () => {
      const seen = JSON.stringify(await mesh.peers(ASKING)).match(/"id":"demo"[^}]*"state":"resident"/g) ?? [];
      return seen.length === REAL.length ? null : `${seen.length} are`;
    });
  }

  /** `count` questions in all manners of asking. Scripted answers are `maxTokens` (default 60) long. */
  questions(model: FaultModel, count: number, more: Partial<Question> = {}): Question[] {
    return this.#questions.make(model, count, more);
  }

  /** The `index`-th of all manners. */
  question(model: FaultModel, index: number): Question {
    return this.#questions.one(model, index);
  }

  /** Streams read by hand only. */
  streams(model: FaultModel, count: number, more: Partial<Question> = {}): Question[] {
    return this.questions(model, count, { stream: true, client: 'http', ...more });
  }

  ask(questions: readonly Question[], at: number = ASKING, marks: readonly number[] = [3]): Asked[] {
    return questions.map((question) => this.#mesh().ask(question, at, marks));
  }

  /** Resolves when a stream that one of `machines` gives has come to `count` chunks; says which. */
  async giver(asked: readonly Asked[], machines: readonly number[], count = 3): Promise<number> {
    const mesh = this.#mesh();
    const seen: number[] = [];
    const given = asked.map(async (one) => {
      const machine = mesh.machineOf(await one.chunks(count));
      seen.push(machine);
      if (!machines.includes(machine)) throw new Error(`machine ${machine}`);
      return machine;
    });
    return Promise.any(given).catch(() => assert.fail(`machines ${machines} give none of the answers but ${seen}`));
  }

  /** Asks about `perSecond` questions a second while `during` runs; returns all of them. */
  async load(perSecond: number, next: () => Question, during: () => Promise<void>): Promise<Asked[]> {
    const asked: Asked[] = [];
    const done = new AbortController();
    const asking = (async () => {
      while (!done.signal.aborted) {
        asked.push(...this.ask([next()]));
        await sleep(1000 / perSecond);
      }
    })();
    try {
      await during();
    } finally {
      done.abort();
      await asking;
    }
    return asked;
  }

  /** Waits for all answers and holds them against what they must be. */
  async settle(asked: readonly Asked[], { errors = 'none', broken = 'none' }: Expectation = {}): Promise<Settled> {
    const ledger = new Ledger();
    const receipts: Receipt[] = [];
    for (const { question, receipt } of asked) {
      receipts.push(await receipt);
      ledger.enter(await receipt, this.#questions.golden(question));
    }
    this.#lines.push(ledger.line());
    const totals = ledger.totals();
    this.#failures += totals.resumed + totals.retried + totals.errors;
    const complaints = ledger.complaints().join('\n');
    assert.equal(totals.violations, 0, complaints);
    if (errors === 'none') assert.equal(totals.errors, 0, complaints);
    if (broken === 'none') assert.equal(totals.broken, 0, complaints);
    return { ...totals, receipts };
  }
}

export interface Settled extends Totals {
  readonly receipts: readonly Receipt[];
}
