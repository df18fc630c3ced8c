/** How far a batch is and how long it will take, as text. Pure. */
import { formatCount, formatDuration } from '../format.ts';

/** As far as `meshnode batch` reads a batch. */
export interface BatchAnswer {
  readonly id: string;
  readonly status: string;
  readonly endpoint: string;
  readonly created_at: number;
  readonly expires_at: number;
  readonly input_file_id: string;
  readonly output_file_id: string | null;
  readonly error_file_id: string | null;
  readonly request_counts: { readonly total: number; readonly completed: number; readonly failed: number };
  readonly errors: { readonly data: readonly { readonly message: string; readonly line: number | null }[] } | null;
  readonly metadata: Readonly<Record<string, string>> | null;
}

/** Lines that were done at a time, milliseconds. */
export interface Sample {
  readonly at: number;
  readonly done: number;
}

const OVER: ReadonlySet<string> = new Set(['completed', 'failed', 'expired', 'cancelled']);
const BAR_CELLS = 24;
/** The estimate rests on so much of the past. */
const WINDOW_MS = 60_000;

export const isOver = ({ status }: BatchAnswer): boolean => OVER.has(status);

export const doneOf = ({ request_counts: { completed, failed } }: BatchAnswer): number => completed + failed;

/** The samples with the newest, without those that are too old to count. */
export function withSample(samples: readonly Sample[], newest: Sample): readonly Sample[] {
  const recent = samples.filter(({ at }) => newest.at - at <= WINDOW_MS);
  return [...recent, newest];
}

/** Milliseconds until all is done, as things went lately; null while nothing can be said. */
export function remainingMs(samples: readonly Sample[], total: number): number | null {
  const [first] = samples;
  const last = samples.at(-1);
  if (first === undefined || last === undefined || last.done <= first.done || total <= 0) return null;
  return ((total - last.done) * (last.at - first.at)) / (last.done - first.done);
}

/** `[######------]  50 % 1,000 of 2,000, 3 failed, 2 min left`; no longer than `columns`. */
export function progressText(batch: BatchAnswer, remaining: number | null, columns: number): string {
  const { total, failed } = batch.request_counts;
  const done = doneOf(batch);
  if (total === 0 || batch.status === 'validating') return `${batch.status}: reading the lines`.slice(0, columns - 1);
  const share = done / total;
  const filled = Math.floor(share * BAR_CELLS);
  const bar = `[${'#'.repeat(filled)}${'-'.repeat(BAR_CELLS - filled)}]`;
  const left = remaining === null || done === total ? '' : `, ${formatDuration(Math.max(1000, remaining))} left`;
  const bad = failed === 0 ? '' : `, ${formatCount(failed)} failed`;
  const counts = `${Math.floor(share * 100)} % ${formatCount(done)} of ${formatCount(total)}${bad}${left}`;
  const text = `${bar} ${counts}`;
  return (text.length < columns ? text : counts).slice(0, columns - 1);
}
