/** Asks the lines of batches, as many at once as nobody else needs the slots for, and keeps what they came to. */
import type { InferenceRequest } from '../../protocols/inference/events.ts';
import type { CancelTimer, Clock } from '../common/clock.ts';
import { MeshError, toMeshError } from '../common/errors.ts';
import type { Logger } from '../common/logger.ts';
import type { BatchStore, LineOutcome, PendingLine, StoredBatch } from '../storage/batch-store.ts';
import { answeredLine, lineIdentity, refusedLine } from './batch-line.ts';
import { expireLines, nextTurn, nowSeconds, writeOutput } from './batch-output.ts';
import type { BatchQueue } from './batch-queue.ts';
import { verdictOf } from './batch-retry.ts';
import type { BatchRoom } from './batch-room.ts';
import { BatchRun } from './batch-run.ts';
import type { Dispatch, Dispatcher } from './dispatch.ts';

/** A whole answer in the shape of its route. */
export interface BatchAnswer {
  /** JSON. */
  readonly body: string;
  readonly promptTokens: number;
  readonly completionTokens: number;
}

export interface BatchRunnerComponents {
  readonly store: BatchStore;
  /** Over the candidates of `room`. */
  readonly dispatcher: Dispatcher;
  readonly room: Pick<BatchRoom, 'free' | 'lookFurther'>;
  /** Puts an answer together. @throws MeshError. */
  readonly answer: (request: InferenceRequest, dispatch: Dispatch) => Promise<BatchAnswer>;
  /** Does this node take work now? */
  readonly isOpen: () => boolean;
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface BatchRunnerOptions {
  /** Lines at once, over all batches and machines. Default 256. */
  readonly atOnce: number;
  /** A model that nobody has for this long is given up, milliseconds. Default 15 minutes. */
  readonly absentMs: number;
  /** How often it looks whether there is room, milliseconds. Default 100. */
  readonly lookMs: number;
  /** Answers are kept this late at most, many in one transaction, milliseconds. Default 25. */
  readonly keepMs: number;
}

export const DEFAULT_BATCH_RUNNER: BatchRunnerOptions = { atOnce: 256, absentMs: 15 * 60_000, lookMs: 100, keepMs: 25 };

/** Answers that are kept in one transaction. */
const KEPT_AT_ONCE = 32;
/** Lines that are begun before others of the event loop get their turn. */
const BEGUN_AT_ONCE = 16;
const LOOK_FURTHER_MS = 15_000;

export class BatchRunner {
  readonly #components: BatchRunnerComponents;
  readonly #options: BatchRunnerOptions;
  readonly #runs = new Map<string, BatchRun>();
  /** Lines that were taken and not yet dispatched, by model: their room is not visible elsewhere. */
  readonly #starting = new Map<string, number>();
  #outcomes: LineOutcome[] = [];
  #running = 0;
  #stopping = false;
  #willLook = false;
  #cancelKeep: CancelTimer | null = null;
  readonly #cancelLook: CancelTimer;
  readonly #lookups = new Map<string, Promise<void>>();
  readonly #ends = new Set<Promise<void>>();
  readonly #lifetime = new AbortController();

  constructor(components: BatchRunnerComponents, options: Partial<BatchRunnerOptions> = {}) {
    this.#components = components;
    this.#options = { ...DEFAULT_BATCH_RUNNER, ...options };
    this.#cancelLook = components.clock.every(this.#options.lookMs, () => this.#look());
  }

  /** Lines that are being asked. */
  get running(): number {
    return this.#running;
  }

  /** Runs a batch that is `in_progress`, from where it is. */
  async add(batch: StoredBatch): Promise<void> {
    if (this.#runs.has(batch.id) || this.#stopping) return;
    const run = await BatchRun.open(this.#components.store, batch);
    this.#runs.set(batch.id, run);
    this.#look();
  }

  /** Ends a batch early; what runs of it is given up. Its files are written, and only then it is over. */
  cancel(batch: StoredBatch): void {
    const run = this.#runs.get(batch.id);
    if (run === undefined) this.#own(this.#finish(batch));
    else this.#end(run, batch);
  }

  /** Writes the files of a batch that no line is missing of. */
  finish(batch: StoredBatch): void {
    this.#own(this.#finish(batch));
  }

  /** Gives up what runs, to be asked again at the next start, and keeps what is there. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#cancelLook();
    const reason = new MeshError('client_closed', 'This node is shutting down.');
    this.#lifetime.abort(reason);
    for (const run of this.#runs.values()) run.abort.abort(reason);
    while (this.#running > 0) await nextTurn();
    await Promise.allSettled([...this.#ends, ...this.#lookups.values()]);
    this.#keep();
    for (const run of this.#runs.values()) await run.close();
    this.#runs.clear();
  }

  #look(): void {
    if (this.#stopping) return;
    const now = this.#components.clock.now();
    const time = nowSeconds();
    for (const run of this.#runs.values()) {
      if (run.isEnding) continue;
      if (run.batch.expiresAt <= time) this.#end(run, this.#expired(run.batch));
      else if (run.isDone(now)) this.#end(run, run.batch);
      else if (this.#components.isOpen()) for (const queue of run.queues) this.#start(run, queue, now);
    }
  }

  /** Once for all that ends in a turn of the event loop. */
  #lookSoon(): void {
    if (this.#willLook) return;
    this.#willLook = true;
    setImmediate(() => {
      this.#willLook = false;
      this.#look();
    });
  }

  #expired({ id }: StoredBatch): StoredBatch {
    return this.#components.store.update(id, 'finalizing', { expiredAt: nowSeconds(), finalizingAt: nowSeconds() });
  }

  #start(run: BatchRun, queue: BatchQueue, now: number): void {
    const { room } = this.#components;
    const { model } = queue;
    const boundary = run.batch.boundary ?? 'public';
    if (this.#running >= this.#options.atOnce || !queue.hasDue(now)) return;
    const free = room.free(model, boundary);
    if (free === null) {
      this.#absent(run, queue, now);
      return;
    }
    queue.absentSince = null;
    const left = Math.min(free - (this.#starting.get(model) ?? 0), this.#options.atOnce - this.#running);
    for (let begun = 0; begun < Math.min(left, BEGUN_AT_ONCE); begun += 1) {
      const line = queue.take(now);
      if (line === null) return;
      void this.#ask(run, queue, line);
    }
    if (left > BEGUN_AT_ONCE) this.#lookSoon();
  }

  /** Never rejects. */
  async #ask(run: BatchRun, queue: BatchQueue, line: PendingLine): Promise<void> {
    const { dispatcher, answer, logger } = this.#components;
    const { batch } = run;
    run.running += 1;
    this.#running += 1;
    this.#starting.set(queue.model, (this.#starting.get(queue.model) ?? 0) + 1);
    const started = once(() => this.#starting.set(queue.model, (this.#starting.get(queue.model) ?? 1) - 1));
    const named = { requestId: lineIdentity(batch.id, line.line).requestId, customId: line.customId };
    try {
      const request = await run.request(line);
      const dispatch = dispatcher.dispatch(request, { signal: run.abort.signal, stream: false });
      const answering = answer(request, dispatch);
      // By then it has chosen whom to ask, and its room is taken where everybody sees it.
      setImmediate(started);
      const { body, promptTokens, completionTokens } = await answering;
      this.#outcome(batch, line, { isOk: true, text: answeredLine(named, body), promptTokens, completionTokens });
    } catch (thrown) {
      const error = toMeshError(thrown);
      if (error.code === 'internal_error')
        logger.warn({ batch: batch.id, line: line.line, err: error }, 'batch line failed');
      this.#failed(run, queue, { line, error, text: () => refusedLine(named, error) });
    } finally {
      started();
      run.running -= 1;
      this.#running -= 1;
      this.#lookSoon();
    }
  }

  #failed(
    run: BatchRun,
    queue: BatchQueue,
    { line, error, text }: { line: PendingLine; error: MeshError; text: () => string },
  ): void {
    const { store, clock } = this.#components;
    if (run.abort.signal.aborted) return;
    const verdict = verdictOf(error, line.tries);
    if (verdict.kind === 'final') {
      this.#outcome(run.batch, line, { isOk: false, text: text(), promptTokens: 0, completionTokens: 0 });
      return;
    }
    const { afterMs, counts } = verdict;
    if (counts) store.tried(run.batch.seq, line.line);
    queue.again({ ...line, tries: line.tries + (counts ? 1 : 0) }, clock.now() + afterMs);
  }

  /** Looks further away, and gives the lines up once nobody had the model for long enough. */
  #absent(run: BatchRun, queue: BatchQueue, now: number): void {
    const { store, room } = this.#components;
    const { model } = queue;
    if (queue.absentSince === null) {
      queue.absentSince = now;
      if (!this.#lookups.has(model)) {
        const signal = AbortSignal.any([this.#lifetime.signal, AbortSignal.timeout(LOOK_FURTHER_MS)]);
        const lookup = room.lookFurther(model, signal).catch(() => {});
        this.#lookups.set(
          model,
          lookup.then(() => void this.#lookups.delete(model)),
        );
      }
    }
    if (now - queue.absentSince < this.#options.absentMs) return;
    queue.absentSince = null;
    const message = `No node within reach had the model '${model}' for ${Math.round(this.#options.absentMs / 60_000)} minutes.`;
    // What of it was read is in the queue's memory only: reading it again finds the outcome first.
    while (queue.take(now) !== null);
    this.#own(expireLines(store, run.batch, { code: 'model_not_available', message }, model));
  }

  #end(run: BatchRun, batch: StoredBatch): void {
    if (run.isEnding) return;
    run.isEnding = true;
    run.abort.abort(new MeshError('client_closed', 'The batch is over.'));
    const end = async (): Promise<void> => {
      while (run.running > 0) await nextTurn();
      await run.close();
      this.#runs.delete(batch.id);
      await this.#finish(batch);
    };
    this.#own(end());
  }

  async #finish({ id }: StoredBatch): Promise<void> {
    const { store } = this.#components;
    this.#keep();
    // It may have been cancelled meanwhile.
    const batch = store.require(id);
    if (batch.expiredAt !== undefined) {
      const message = 'This request could not be executed before the completion window expired.';
      await expireLines(store, batch, { code: 'batch_expired', message });
    }
    const isWhole = batch.cancellingAt !== undefined || store.pendingCount(batch.seq) === 0;
    if (!isWhole) throw new MeshError('internal_error', `lines of ${id} have no outcome`);
    await writeOutput(store, batch, this.#lifetime.signal);
    while (!this.#stopping && store.removeFinished()) await nextTurn();
  }

  /** What goes wrong is logged; the batch is then as it was, and is gone on with at the next start. */
  #own(work: Promise<void>): void {
    const { logger } = this.#components;
    const owned = work
      .catch((err: unknown) => {
        if (!this.#lifetime.signal.aborted) logger.error({ err }, 'a batch could not be ended');
      })
      .finally(() => this.#ends.delete(owned));
    this.#ends.add(owned);
  }

  #outcome({ seq }: StoredBatch, { line }: PendingLine, outcome: Omit<LineOutcome, 'batch' | 'line'>): void {
    this.#outcomes.push({ batch: seq, line, ...outcome });
    if (this.#outcomes.length >= KEPT_AT_ONCE) this.#keep();
    else this.#cancelKeep ??= this.#components.clock.after(this.#options.keepMs, () => this.#keep());
  }

  #keep(): void {
    this.#cancelKeep?.();
    this.#cancelKeep = null;
    const outcomes = this.#outcomes;
    if (outcomes.length === 0) return;
    this.#outcomes = [];
    try {
      this.#components.store.finish(outcomes);
    } catch (err) {
      this.#components.logger.error({ err }, 'answers of a batch could not be kept: they are tried again');
      this.#outcomes = [...outcomes, ...this.#outcomes];
      this.#cancelKeep = this.#components.clock.after(1000, () => this.#keep());
    }
  }
}

function once(work: () => void): () => void {
  let isDone = false;
  return () => {
    if (!isDone) work();
    isDone = true;
  };
}
