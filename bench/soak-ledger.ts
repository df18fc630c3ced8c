/** The ledger of the soak: what a struck machine's own clients may suffer, and nobody else. */
import type { Asked } from '../test/support/fault-asker.ts';
import type { FaultQuestions } from '../test/support/fault-questions.ts';
import { type Judgement, Ledger, type Receipt } from '../test/support/ledger.ts';
import type { SoakFault } from './soak-faults.ts';

/** A machine was struck; Unix milliseconds. */
interface Window {
  readonly machine: number;
  readonly name: string;
  readonly costs: SoakFault['costs'];
  readonly fromMs: number;
  toMs: number;
}

/** A whole answer of a few hundred tokens, through any one fault. */
const SLOW_MS = 20_000;

const now = (): number => performance.timeOrigin + performance.now();

export class SoakLedger {
  readonly #questions: FaultQuestions;
  readonly #serves: (machine: number, model: string) => boolean;
  readonly #ledger = new Ledger();
  readonly #windows: Window[] = [];
  readonly #violations: string[] = [];
  readonly #open = new Set<Promise<void>>();
  readonly #slow: string[] = [];
  #excused = 0;
  #told = 0;

  /** `serves`: does the machine have the model itself? */
  constructor(questions: FaultQuestions, serves: (machine: number, model: string) => boolean) {
    this.#questions = questions;
    this.#serves = serves;
  }

  /** Clients on `machine` may see what the fault costs them until the returned function is called. */
  strikes(machine: number, { name, costs }: Pick<SoakFault, 'name' | 'costs'>): () => void {
    const window = { machine, name, costs, fromMs: now(), toMs: Number.POSITIVE_INFINITY };
    this.#windows.push(window);
    return () => {
      window.toMs = now();
    };
  }

  /** Enters the answer when it has come. `explain`: what the node that was asked says about a request. */
  asked({ question, receipt }: Asked, machine: number, explain: (requestId: string) => Promise<string>): Promise<void> {
    const entering = receipt.then(async (come) => {
      const judgement = this.#ledger.enter(come, this.#questions.golden(question));
      const harmless = judgement.verdict === 'completed' || judgement.verdict === 'left';
      const suffers = judgement.verdict === 'error' || judgement.verdict === 'broken';
      if (suffers && this.#wasStruck(machine, question.model, come)) {
        this.#excused += 1;
        return;
      }
      const isSlow = come.endedAtMs - come.sentAtMs > SLOW_MS;
      if (harmless && !isSlow) return;
      const told = come.requestId === null ? '' : await explain(come.requestId);
      const line = `${this.#describe(judgement, come, machine)}\n    ${told}`;
      (harmless ? this.#slow : this.#violations).push(line);
    });
    this.#open.add(entering);
    return entering.finally(() => this.#open.delete(entering));
  }

  /** All answers have come. */
  async settled(): Promise<void> {
    await Promise.all(this.#open);
  }

  /** Broken promises, one line each. */
  violations(): readonly string[] {
    return this.#violations;
  }

  /** Those since the last call. */
  news(): readonly string[] {
    const news = this.#violations.slice(this.#told);
    this.#told = this.#violations.length;
    return news;
  }

  line(): string {
    return `${this.#ledger.line()}; of struck machines' own clients ${this.#excused}; broken promises ${this.#violations.length}`;
  }

  /** Answers that took very long, which is no broken promise. */
  slow(): readonly string[] {
    return this.#slow;
  }

  /** How often each fault struck. */
  struck(): string {
    const names = [...new Set(this.#windows.map(({ name }) => name))].toSorted();
    return names.map((name) => `${name} ${this.#windows.filter((one) => one.name === name).length}`).join(', ');
  }

  #wasStruck(machine: number, model: string, { sentAtMs, endedAtMs }: Receipt): boolean {
    return this.#windows.some(({ machine: struck, costs, fromMs, toMs }) => {
      const isCost = costs === 'everything' || (costs === 'others' && !this.#serves(machine, model));
      return struck === machine && isCost && sentAtMs <= toMs && endedAtMs >= fromMs;
    });
  }

  #describe({ id, verdict, detail }: Judgement, receipt: Receipt, machine: number): string {
    const during = this.#windows.findLast(({ fromMs }) => fromMs <= receipt.endedAtMs);
    const fault = during === undefined ? 'before any fault' : `after ${during.name} of machine ${during.machine}`;
    const { status, attempts, resumed, sentAtMs, endedAtMs } = receipt;
    const facts = `status ${status}, attempts ${attempts}, resumed ${resumed}, ${Math.round(endedAtMs - sentAtMs)} ms`;
    return `${id} asked on machine ${machine}: ${verdict} (${detail}); ${facts}; ${fault}`;
  }
}
