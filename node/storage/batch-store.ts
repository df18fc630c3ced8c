/** Batches and their lines: what is to be asked, and what was answered, so that a crash loses and repeats nothing. */
import type { DatabaseSync } from 'node:sqlite';
import type { Boundary } from '../../protocols/inference/events.ts';
import { MeshError } from '../common/errors.ts';
import { BatchStoreFiles } from './batch-store-files.ts';
import { batchPaths, openBatchDatabase } from './batch-store-open.ts';

export type BatchState =
  | 'validating'
  | 'failed'
  | 'in_progress'
  | 'finalizing'
  | 'completed'
  | 'expired'
  | 'cancelling'
  | 'cancelled';

/** What is wrong with a whole batch, or with one of its lines. */
export interface BatchError {
  readonly code: string;
  readonly message: string;
  readonly line: number | null;
  readonly param: string | null;
}

/** What changes seldom. Times are Unix seconds. */
export interface BatchFacts {
  readonly endpoint: string;
  readonly inputFileId: string;
  readonly window: string;
  readonly createdAt: number;
  readonly expiresAt: number;
  readonly metadata: Readonly<Record<string, string>> | null;
  /** How far its requests may go; null: no limit. */
  readonly boundary: Boundary | null;
  readonly outputFileId?: string;
  readonly errorFileId?: string;
  readonly errors?: readonly BatchError[];
  readonly inProgressAt?: number;
  readonly finalizingAt?: number;
  readonly completedAt?: number;
  readonly failedAt?: number;
  readonly expiredAt?: number;
  readonly cancellingAt?: number;
  readonly cancelledAt?: number;
}

export interface StoredBatch extends BatchFacts {
  readonly seq: number;
  /** `batch_<24 hex>`. */
  readonly id: string;
  readonly state: BatchState;
  readonly total: number;
  readonly completed: number;
  readonly failed: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
}

/** A line as it was found. One that is no request has its outcome at once. */
export interface NewLine {
  readonly line: number;
  readonly customId: string | null;
  readonly model: string | null;
  readonly at: number;
  readonly sizeBytes: number;
  readonly outcome: string | null;
}

/** A line that is to be asked. */
export interface PendingLine {
  readonly line: number;
  readonly customId: string;
  readonly at: number;
  readonly sizeBytes: number;
  /** Attempts that failed for good reasons. */
  readonly tries: number;
}

/** What a line came to: one line of the output file, or of the error file. */
export interface LineOutcome {
  readonly batch: number;
  readonly line: number;
  readonly isOk: boolean;
  readonly text: string;
  readonly promptTokens: number;
  readonly completionTokens: number;
}

const ENDED: readonly BatchState[] = ['failed', 'completed', 'expired', 'cancelled'];
/** Does nothing more happen to a batch in this state? */
export const isOver = (state: BatchState): boolean => ENDED.includes(state);
/** Rows that are removed at a time: the event loop waits for each. */
const REMOVED_AT_ONCE = 200;

type Row = Record<string, string | number | null>;

/** Opened at construction; every method is one short transaction. Only one process may have it open: the data dir's lock. */
export class BatchStore {
  readonly files: BatchStoreFiles;
  readonly #database: DatabaseSync;

  constructor(components: { readonly warn: (message: string) => void }, options: { readonly dataDir: string }) {
    this.#database = openBatchDatabase(options.dataDir, components.warn);
    this.files = new BatchStoreFiles({ database: this.#database }, { dir: batchPaths(options.dataDir).files });
  }

  close(): void {
    this.#database.close();
  }

  /** Runs `work` as one transaction, synced to disk before it returns when `isDurable`. */
  transaction<T>(work: () => T, isDurable: boolean = false): T {
    if (isDurable) this.#database.exec('PRAGMA synchronous = FULL');
    this.#database.exec('BEGIN IMMEDIATE');
    try {
      const result = work();
      this.#database.exec('COMMIT');
      return result;
    } catch (error) {
      // A full disk has rolled it back already.
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      throw error;
    } finally {
      if (isDurable) this.#database.exec('PRAGMA synchronous = NORMAL');
    }
  }

  add(id: string, facts: BatchFacts): StoredBatch {
    this.transaction(() => {
      this.#run('INSERT INTO batches (id, state, facts) VALUES (?, ?, ?)', id, 'validating', JSON.stringify(facts));
    }, true);
    return this.require(id);
  }

  get(id: string): StoredBatch | null {
    const row = this.#row('SELECT * FROM batches WHERE id = ?', id);
    return row === undefined ? null : batchOf(row);
  }

  /** @throws MeshError `not_found`. */
  require(id: string, param: string | null = null): StoredBatch {
    const batch = this.get(id);
    if (batch !== null) return batch;
    const message = `There is no batch "${id.slice(0, 64)}".`;
    throw new MeshError('not_found', message, param === null ? {} : { param });
  }

  /** Newest first, one more than asked for where there is one. @throws MeshError `not_found` for an unknown `after`. */
  list({ after, limit }: { readonly after?: string | undefined; readonly limit: number }): StoredBatch[] {
    const seq = after === undefined ? null : this.require(after, 'after').seq;
    const sql = 'SELECT * FROM batches WHERE (?1 IS NULL OR seq < ?1) ORDER BY seq DESC LIMIT ?2';
    return (this.#database.prepare(sql).all(seq, limit + 1) as Row[]).map(batchOf);
  }

  /** Those that are not over, oldest first. */
  open(): StoredBatch[] {
    const marks = ENDED.map(() => '?').join(', ');
    const sql = `SELECT * FROM batches WHERE state NOT IN (${marks}) ORDER BY seq`;
    return (this.#database.prepare(sql).all(...ENDED) as Row[]).map(batchOf);
  }

  /** Moves a batch on and adds to its facts; in the caller's transaction. */
  update(id: string, state: BatchState, facts: Partial<BatchFacts> = {}): StoredBatch {
    const added = JSON.stringify(facts);
    this.#run('UPDATE batches SET state = ?, facts = json_patch(facts, ?) WHERE id = ?', state, added, id);
    return this.require(id);
  }

  /** Adds lines as one transaction. Which of their custom ids were there already? Those lines are not added. */
  addLines(batch: number, lines: readonly NewLine[]): NewLine[] {
    const insert = this.#database.prepare(
      `INSERT INTO lines (batch, line, custom_id, model, at, bytes, ok, outcome) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (batch, custom_id) WHERE custom_id IS NOT NULL DO NOTHING`,
    );
    return this.transaction(() => {
      const twice: NewLine[] = [];
      let failed = 0;
      for (const one of lines) {
        const { line, customId, model, at, sizeBytes, outcome } = one;
        const ok = outcome === null ? null : 0;
        const { changes } = insert.run(batch, line, customId, model, at, sizeBytes, ok, outcome);
        if (changes === 0) twice.push(one);
        else if (outcome !== null) failed += 1;
      }
      const count = 'UPDATE batches SET total = total + ?, failed = failed + ? WHERE seq = ?';
      this.#run(count, lines.length - twice.length, failed, batch);
      return twice;
    });
  }

  /** Number of the line that has this custom id; null for none. */
  lineOf(batch: number, customId: string): number | null {
    const row = this.#row('SELECT line FROM lines WHERE batch = ? AND custom_id = ?', batch, customId);
    return row === undefined ? null : Number(row['line']);
  }

  /** Forgets every line of a batch whose reading was cut short. */
  forgetLines(batch: number): void {
    this.transaction(() => {
      this.#run('DELETE FROM lines WHERE batch = ?', batch);
      this.#run('UPDATE batches SET total = 0, completed = 0, failed = 0 WHERE seq = ?', batch);
    });
  }

  /** Models that still have something to answer. */
  pendingModels(batch: number): string[] {
    const sql = 'SELECT DISTINCT model FROM lines WHERE batch = ? AND outcome IS NULL ORDER BY model';
    return (this.#database.prepare(sql).all(batch) as Row[]).map((row) => String(row['model']));
  }

  /** The next lines of a model without an answer behind line `after`. */
  pending(batch: number, model: string, { after, limit }: { after: number; limit: number }): PendingLine[] {
    const sql = `SELECT line, custom_id, at, bytes, tries FROM lines
      WHERE batch = ? AND model = ? AND outcome IS NULL AND line > ? ORDER BY line LIMIT ?`;
    return (this.#database.prepare(sql).all(batch, model, after, limit) as Row[]).map((row) => ({
      line: Number(row['line']),
      customId: String(row['custom_id']),
      at: Number(row['at']),
      sizeBytes: Number(row['bytes']),
      tries: Number(row['tries']),
    }));
  }

  /** Lines without an outcome. */
  pendingCount(batch: number): number {
    return Number(this.#row('SELECT count(*) AS n FROM lines WHERE batch = ? AND outcome IS NULL', batch)?.['n'] ?? 0);
  }

  tried(batch: number, line: number): void {
    this.#run('UPDATE lines SET tries = tries + 1 WHERE batch = ? AND line = ?', batch, line);
  }

  /** Keeps answers, and that they are there, as one transaction. The first outcome of a line counts. */
  finish(outcomes: readonly LineOutcome[]): void {
    const keep = this.#database.prepare(
      'UPDATE lines SET ok = ?, outcome = ? WHERE batch = ? AND line = ? AND outcome IS NULL',
    );
    const count = this.#database.prepare(
      `UPDATE batches SET completed = completed + ?, failed = failed + ?, prompt_tokens = prompt_tokens + ?,
       completion_tokens = completion_tokens + ? WHERE seq = ?`,
    );
    this.transaction(() => {
      for (const { batch, line, isOk, text, promptTokens, completionTokens } of outcomes) {
        const ok = isOk ? 1 : 0;
        if (keep.run(ok, text, batch, line).changes === 0) continue;
        count.run(ok, 1 - ok, promptTokens, completionTokens, batch);
      }
    });
  }

  /** Lines of the output file (`isOk`) or the error file, in order, behind line `after`. */
  outcomes(
    batch: number,
    isOk: boolean,
    { after, limit }: { after: number; limit: number },
  ): { line: number; text: string }[] {
    const sql = 'SELECT line, outcome FROM lines WHERE batch = ? AND ok = ? AND line > ? ORDER BY line LIMIT ?';
    const rows = this.#database.prepare(sql).all(batch, isOk ? 1 : 0, after, limit) as Row[];
    return rows.map((row) => ({ line: Number(row['line']), text: String(row['outcome']) }));
  }

  /** Removes some lines of batches that are over and whose files are written. False when there are none left. */
  removeFinished(): boolean {
    const marks = ENDED.map(() => '?').join(', ');
    const sql = `DELETE FROM lines WHERE rowid IN
      (SELECT rowid FROM lines WHERE batch IN (SELECT seq FROM batches WHERE state IN (${marks})) LIMIT ${REMOVED_AT_ONCE})`;
    return Number(this.#database.prepare(sql).run(...ENDED).changes) === REMOVED_AT_ONCE;
  }

  #run(sql: string, ...values: (string | number | null)[]): void {
    this.#database.prepare(sql).run(...values);
  }

  #row(sql: string, ...values: (string | number)[]): Row | undefined {
    return this.#database.prepare(sql).get(...values) as Row | undefined;
  }
}

function batchOf(row: Row): StoredBatch {
  const facts = JSON.parse(String(row['facts'])) as BatchFacts;
  return {
    ...facts,
    // A merge patch drops what is null.
    metadata: facts.metadata ?? null,
    boundary: facts.boundary ?? null,
    seq: Number(row['seq']),
    id: String(row['id']),
    state: row['state'] as BatchState,
    total: Number(row['total']),
    completed: Number(row['completed']),
    failed: Number(row['failed']),
    promptTokens: Number(row['prompt_tokens']),
    completionTokens: Number(row['completion_tokens']),
  };
}
