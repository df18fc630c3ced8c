/**
 * The ledger's client in a process of its own, so that it can run on any machine of a test's LAN. One JSON order a line on
 * stdin, one JSON answer a line on stdout; ends with stdin, hanging up on all answers.
 */
import { createInterface } from 'node:readline';
import type { Question, Receipt } from './ledger.ts';
import { askForReceipt } from './ledger-client.ts';

export type LedgerOrder =
  /** `marks`: chunk counts that are reported while the answer runs. */
  | { readonly ask: Question; readonly api: string; readonly marks: readonly number[] }
  | { readonly leave: string }
  | { readonly get: string; readonly key: string };

export type LedgerReport =
  | { readonly receipt: Receipt }
  | { readonly mark: number; readonly id: string; readonly node: string | null }
  /** `status` 0: nobody answered. */
  | { readonly key: string; readonly status: number; readonly body: string };

const leaving = new Map<string, AbortController>();
const report = (what: LedgerReport): void => void process.stdout.write(`${JSON.stringify(what)}\n`);

createInterface(process.stdin)
  .on('line', (line) => void obey(JSON.parse(line) as LedgerOrder))
  .on('close', () => process.exit(0));

async function obey(order: LedgerOrder): Promise<void> {
  if ('leave' in order) leaving.get(order.leave)?.abort();
  else if ('get' in order) report({ key: order.key, ...(await get(order.get)) });
  else {
    const { ask, api, marks } = order;
    const leave = new AbortController();
    leaving.set(ask.id, leave);
    const onText = (count: number, node: string | null): void => {
      if (marks.includes(count)) report({ mark: count, id: ask.id, node });
    };
    report({ receipt: await askForReceipt(ask, { api, signal: leave.signal, onText }) });
    leaving.delete(ask.id);
  }
}

async function get(url: string): Promise<{ status: number; body: string }> {
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(10_000) });
    return { status: answer.status, body: await answer.text() };
  } catch {
    return { status: 0, body: '' };
  }
}
