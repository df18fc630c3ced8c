/** What clients asked and what they got, and whether any promise was broken. Pure: receipts in, verdicts out. */
import { scriptedAnswer } from './scripted-engine.ts';

/** One chat request of the ledger's client. */
export interface Question {
  /** Unique within a ledger. */
  readonly id: string;
  readonly model: string;
  readonly prompt: string;
  readonly seed: number;
  readonly temperature: number;
  readonly maxTokens: number;
  readonly stream: boolean;
  /** `http` reads the bytes by hand, `openai` is the official client. */
  readonly client: 'http' | 'openai';
  /** The client hangs up when it has had so many chunks; streams only. */
  readonly leaveAfter?: number;
  /** Only the node that is asked may answer. Default false. */
  readonly local?: boolean;
  /** How long the client waits for everything, milliseconds. Default 60,000. */
  readonly patienceMs?: number;
}

/** What came back. Times are Unix milliseconds with fractions. */
export interface Receipt {
  readonly id: string;
  readonly status: number | null;
  readonly text: string;
  readonly finish: string | null;
  /** `data: [DONE]` came, or the whole JSON document did. */
  readonly done: boolean;
  /** `usage.completion_tokens`, where it came. */
  readonly completionTokens: number | null;
  readonly error: { readonly code: string; readonly message: string; readonly retryAfterS: number | null } | null;
  /** Why the connection ended before the answer did; null when it did not. */
  readonly broken: string | null;
  readonly timedOut: boolean;
  readonly left: boolean;
  /** Of the headers: under which the node explains what it did. */
  readonly requestId: string | null;
  /** Of the headers. */
  readonly node: string | null;
  readonly attempts: number | null;
  /** Of the finish chunk: how often another backend went on with it, and who gave it. */
  readonly resumed: number;
  readonly nodes: readonly string[];
  readonly sentAtMs: number;
  readonly endedAtMs: number;
  /** Of each chunk with text. */
  readonly textAtMs: readonly number[];
}

/** What an undisturbed run gives. */
export interface Golden {
  readonly text: string;
  readonly completionTokens: number;
  readonly finish: string;
}

/**
 * `completed`: whole and right. `error`: one clean error. `left`: the client hung up. `broken`: the connection ended
 * without a word. The others are violations whatever happened to the mesh.
 */
export type Verdict = 'completed' | 'error' | 'left' | 'broken' | 'truncated' | 'wrong-text' | 'wrong-usage' | 'no-end';

export interface Judgement {
  readonly id: string;
  readonly verdict: Verdict;
  /** In words; empty for what is right. */
  readonly detail: string;
}

/** The golden answer of a scripted engine, which is a function of the question. */
export const scriptedGolden = ({ seed, maxTokens }: Question): Golden => ({
  text: scriptedAnswer(seed, maxTokens),
  completionTokens: maxTokens,
  finish: 'length',
});

/** The verdict on one answer. */
export function judge(receipt: Receipt, golden: Golden): Judgement {
  const { id, text } = receipt;
  const said = (verdict: Verdict, detail = ''): Judgement => ({ id, verdict, detail });
  if (!golden.text.startsWith(text)) return said('wrong-text', difference(text, golden.text));
  if (receipt.left) return said('left');
  if (receipt.timedOut) return said('no-end', `no end after ${text.length} characters`);
  if (receipt.error !== null) {
    const looksWhole = receipt.done || receipt.finish !== null;
    return looksWhole
      ? said('truncated', 'an error in an answer that looks whole')
      : said('error', `${receipt.error.code}: ${receipt.error.message}`);
  }
  if (receipt.broken !== null) return said('broken', receipt.broken);
  if (!receipt.done || receipt.finish === null) return said('truncated', 'ended without a finish reason or [DONE]');
  if (text !== golden.text) return said('truncated', `${text.length} of ${golden.text.length} characters look whole`);
  if (receipt.finish !== golden.finish) return said('wrong-text', `finish_reason ${receipt.finish}`);
  if (receipt.completionTokens !== golden.completionTokens) {
    return said('wrong-usage', `${receipt.completionTokens} tokens counted, ${golden.completionTokens} given`);
  }
  return said('completed');
}

function difference(text: string, golden: string): string {
  let at = 0;
  while (at < text.length && text[at] === golden[at]) at += 1;
  const [got, due] = [text.slice(at, at + 24), golden.slice(at, at + 24)];
  const word = got.split(' ')[0] ?? '';
  const kind = golden.slice(0, at).includes(word) ? 'repeated' : golden.slice(at).includes(word) ? 'gap' : 'foreign';
  return `${kind} at character ${at}: ${JSON.stringify(got)} instead of ${JSON.stringify(due)}`;
}

/** Sums of a ledger. `sent` = all the others together. */
export interface Totals {
  readonly sent: number;
  readonly completed: number;
  readonly errors: number;
  readonly left: number;
  readonly broken: number;
  readonly violations: number;
  /** Answers that more than one backend gave. */
  readonly resumed: number;
  /** Answers with more than one attempt. */
  readonly retried: number;
}

const VIOLATIONS: readonly Verdict[] = ['truncated', 'wrong-text', 'wrong-usage', 'no-end'];

/** All answers of a run. */
export class Ledger {
  readonly #judged: { readonly receipt: Receipt; readonly judgement: Judgement }[] = [];

  enter(receipt: Receipt, golden: Golden): Judgement {
    const judgement = judge(receipt, golden);
    this.#judged.push({ receipt, judgement });
    return judgement;
  }

  totals(): Totals {
    const count = (...verdicts: Verdict[]): number =>
      this.#judged.filter(({ judgement }) => verdicts.includes(judgement.verdict)).length;
    return {
      sent: this.#judged.length,
      completed: count('completed'),
      errors: count('error'),
      left: count('left'),
      broken: count('broken'),
      violations: count(...VIOLATIONS),
      resumed: this.#judged.filter(({ receipt }) => receipt.resumed > 0).length,
      retried: this.#judged.filter(({ receipt }) => (receipt.attempts ?? 1) > 1).length,
    };
  }

  /** One line for each answer that is neither complete nor left by its client. */
  complaints(): string[] {
    return this.#judged
      .filter(({ judgement }) => judgement.verdict !== 'completed' && judgement.verdict !== 'left')
      .map(({ judgement, receipt }) => {
        const { resumed, attempts, status } = receipt;
        const facts = `status ${status}, attempts ${attempts}, resumed ${resumed}`;
        return `${judgement.id}: ${judgement.verdict} (${judgement.detail}); ${facts}`;
      });
  }

  /** `sent 12 = completed 11 + errors 1; …` */
  line(): string {
    const { sent, completed, errors, left, broken, violations, resumed, retried } = this.totals();
    const sum = `sent ${sent} = completed ${completed} + clean errors ${errors} + left ${left} + broken ${broken}`;
    return `${sum} + violations ${violations}; resumed ${resumed}, retried ${retried}`;
  }
}
