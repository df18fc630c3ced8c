/** Follows a batch to its end, through restarts of the node, and fetches its files. */
import { createWriteStream } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { CliError, type Invocation } from '../command.ts';
import { formatCount } from '../format.ts';
import { connect, type NodeApi } from '../node-api.ts';
import { clean } from '../terminal.ts';
import {
  type BatchAnswer,
  doneOf,
  isOver,
  progressText,
  remainingMs,
  type Sample,
  withSample,
} from './batch-progress.ts';

const LOOK_EVERY_MS = 500;
/** Between two lines where no person watches. */
const SAY_EVERY_MS = 5000;
/** A node that is gone for longer does not come back by itself. */
const GONE_MS = 5 * 60_000;

/** The batch when it is over; null when the signal aborted first. */
export async function follow(
  invocation: Invocation,
  { id, signal }: { readonly id: string; readonly signal: AbortSignal },
): Promise<BatchAnswer | null> {
  const view = new ProgressView(invocation);
  let samples: readonly Sample[] = [];
  try {
    for (;;) {
      const batch = await lookUntil(invocation, { id, signal });
      if (batch === null) return null;
      samples = withSample(samples, { at: performance.now(), done: doneOf(batch) });
      view.show(batch, remainingMs(samples, batch.request_counts.total));
      if (isOver(batch)) return batch;
      await sleep(LOOK_EVERY_MS, undefined, { signal }).catch(() => {});
      if (signal.aborted) return null;
    }
  } finally {
    view.end();
  }
}

/** Asks until the node answers: it may be starting again, on another port. */
async function lookUntil(
  invocation: Invocation,
  { id, signal }: { readonly id: string; readonly signal: AbortSignal },
): Promise<BatchAnswer | null> {
  const giveUpAt = performance.now() + GONE_MS;
  for (;;) {
    try {
      return await (await connect(invocation)).read<BatchAnswer>(`/v1/batches/${id}`);
    } catch (error) {
      if (signal.aborted) return null;
      if (!(error instanceof CliError) || /no batch/.test(error.message) || performance.now() > giveUpAt) throw error;
      await sleep(2 * LOOK_EVERY_MS, undefined, { signal }).catch(() => {});
    }
  }
}

export interface Download {
  readonly fileId: string;
  /** Appears when it is whole. */
  readonly path: string;
  readonly signal: AbortSignal;
}

/** Writes the content of a file of the node. @throws the signal's reason, else CliError. */
export async function download(api: Pick<NodeApi, 'bytes'>, { fileId, path, signal }: Download): Promise<void> {
  const temporary = `${path}.part`;
  try {
    const content = await api.bytes(`/v1/files/${encodeURIComponent(fileId)}/content`, signal);
    await pipeline(Readable.from(content), createWriteStream(temporary), { signal });
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    signal.throwIfAborted();
    if (error instanceof CliError) throw error;
    throw new CliError(`cannot write ${path} (${(error as NodeJS.ErrnoException).code ?? (error as Error).message})`);
  }
}

class ProgressView {
  readonly #invocation: Invocation;
  #saidAt = Number.NEGATIVE_INFINITY;
  #isOpen = false;

  constructor(invocation: Invocation) {
    this.#invocation = invocation;
  }

  show(batch: BatchAnswer, remaining: number | null): void {
    const { terminal, json } = this.#invocation;
    const isDue = performance.now() - this.#saidAt >= SAY_EVERY_MS || isOver(batch);
    if (terminal.isTty && !json) {
      terminal.write(`\r\u001b[K${progressText(batch, remaining, terminal.columns)}`);
      this.#isOpen = true;
    } else if (isDue) {
      this.#saidAt = performance.now();
      const { id, status, request_counts: counts } = batch;
      const remainingSeconds = remaining === null ? null : Math.round(remaining / 1000);
      if (json) terminal.json({ event: 'progress', id, status, ...counts, remainingSeconds });
      else terminal.line(progressText(batch, remaining, 80));
    }
  }

  end(): void {
    if (this.#isOpen) this.#invocation.terminal.write('\n');
  }
}

/** What a batch that is over came to, in words. */
export function verdict({ status, request_counts, errors }: BatchAnswer): string {
  const { completed, failed } = request_counts;
  const counts = `${formatCount(completed)} answered, ${formatCount(failed)} failed`;
  const [first] = errors?.data ?? [];
  if (first === undefined) return `${status}: ${counts}`;
  const where = first.line === null ? '' : `line ${first.line}: `;
  return `${status}: ${where}${clean(first.message)}`;
}
