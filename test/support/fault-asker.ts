/** The handle of one `ledger-main.ts`: clients on a machine of a test's LAN. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import type { Question, Receipt } from './ledger.ts';
import type { LedgerOrder, LedgerReport } from './ledger-main.ts';

const MAIN = path.join(import.meta.dirname, 'ledger-main.ts');

/** A question on its way. */
export interface Asked {
  readonly question: Question;
  /** Never rejects while the asker lives. */
  readonly receipt: Promise<Receipt>;
  /** Who gives the answer, when `count` chunks of text have come; null when it ended before. */
  chunks(count: number): Promise<string | null>;
  /** The client hangs up. */
  leave(): void;
}

export class Asker {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #waiting = new Map<string, (report: LedgerReport) => void>();
  #gets = 0;

  /** `on`: the command prefix of the machine. */
  constructor(on: readonly string[]) {
    const line = [...on, process.execPath, MAIN];
    this.#child = spawn(line[0] ?? '', line.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] });
    createInterface(this.#child.stdout).on('line', (text) => this.#said(JSON.parse(text) as LedgerReport));
  }

  /** Asks the facade at `api`; `marks` are the chunk counts that `chunks` may wait for. */
  ask(question: Question, api: string, marks: readonly number[]): Asked {
    const reached = new Map(marks.map((mark) => [mark, Promise.withResolvers<string | null>()]));
    const receipt = new Promise<Receipt>((resolve) => {
      this.#waiting.set(`receipt ${question.id}`, (report) => {
        if (!('receipt' in report)) return;
        resolve(report.receipt);
        for (const mark of reached.values()) mark.resolve(null);
      });
    });
    for (const [mark, { resolve }] of reached) {
      this.#waiting.set(`mark ${mark} ${question.id}`, (report) => resolve('mark' in report ? report.node : null));
    }
    this.#order({ ask: question, api, marks });
    return {
      question,
      receipt,
      chunks: (count) => reached.get(count)?.promise ?? Promise.reject(new Error(`${count} is not marked`)),
      leave: () => this.#order({ leave: question.id }),
    };
  }

  /** Status 0 when nobody answered. */
  async get(url: string): Promise<{ status: number; body: string }> {
    const key = `get ${this.#gets++}`;
    const { promise, resolve } = Promise.withResolvers<LedgerReport>();
    this.#waiting.set(key, resolve);
    this.#order({ get: url, key });
    const report = await promise;
    return 'key' in report ? report : { status: 0, body: '' };
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.stdin.end();
    await once(this.#child, 'exit');
  }

  #order(order: LedgerOrder): void {
    this.#child.stdin.write(`${JSON.stringify(order)}\n`);
  }

  #said(report: LedgerReport): void {
    const key =
      'receipt' in report
        ? `receipt ${report.receipt.id}`
        : 'mark' in report
          ? `mark ${report.mark} ${report.id}`
          : report.key;
    this.#waiting.get(key)?.(report);
    this.#waiting.delete(key);
  }
}
