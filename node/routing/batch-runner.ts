/** Asks the lines of batches, as many at once as nobody else needs the slots for, and keeps what they came to. */
import type { InferenceRequest } from '../../protocols/inference/events.ts';
import type { CancelTimer, Clock } from '../common/clock.ts';
import { MeshError, toMeshError } from '../common/errors.ts';
import type { Logger } from '../common/logger.ts';
import { type BatchStore, isOver, type PendingLine, type StoredBatch } from '../storage/batch-store.ts';
import { answeredLine, lineIdentity, refusedLine } from './batch-line.ts';
import { BatchLookups } from './batch-lookups.ts';
import { BatchOutcomes } from './batch-outcomes.ts';
import { expireLines, nextTurn, nowSeconds, writeOutput } from './batch-output.ts';
import type { BatchQueue } from './batch-queue.ts';
import { verdictOf } from './batch-retry.ts';
import type { BatchRoom } from './batch-room.ts';
import { BatchRun } from './batch-run.ts';
import type { Dispatch, Dispatcher } from './dispatch.ts';
import { UntilDone } from './until-done.ts';

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

/** Lines that are begun before others of the event loop get their turn. */
const BEGUN_AT_ONCE = 16;
const NOT_ENDED = 'a batch could not be ended';

export class BatchRunner {
  readonly #components: BatchRunnerComponents;
  readonly #options: BatchRunnerOptions;
  readonly #outcomes: BatchOutcomes;
  readonly #runs = new Map<string, BatchRun>();
  /** Ids of batches whose input is being opened. */
  readonly #opening = new Set<string>();
  /** Lines that were taken and not yet dispatched, by model: their room is not visible elsewhere. */
  readonly #starting = new Map<string, number>();
  #running = 0;
  #stopping = false;
  #willLook = false;
  #looksFail = false;
  readonly #cancelLook: CancelTimer;
  readonly #lifetime = new AbortController();
  readonly #ends: UntilDone;
  readonly #lookups: BatchLookups;

  constructor(components: BatchRunnerComponents, options: Partial<BatchRunnerOptions> = {}) {
    this.#components = components;
    this.#options = { ...DEFAULT_BATCH_RUNNER, ...options };
    this.#outcomes = new BatchOutcomes(components, this.#options);
    this.#ends = new UntilDone(components, this.#lifetime);
    this.#lookups = new BatchLookups(components, this.#lifetime);
    this.#cancelLook = components.clock.every(this.#options.lookMs, () => this.#look());
  }

  /** Lines that are being asked. */
  get running(): number {
    return this.#running;
  }

  /** Runs a batch that is `in_progress`, from where it is. */
  async add(batch: StoredBatch): Promise<void> {
    const { store } = this.#components;
    if (this.#runs.has(batch.id) || this.#opening.has(batch.id) || this.#stopping) return;
    this.#opening.add(batch.id);
    const run = await BatchRun.open(store, batch).finally(() => this.#opening.delete(batch.id));
    if (this.#stopping) return await run.close();
    this.#runs.set(batch.id, run);
    const now = store.require(batch.id);
    if (now.cancellingAt === undefined) this.#look();
    else this.#end(run, now);
  }

  /** Ends a batch early; what runs of it is given up. Its files are written, and only then it is over. */
  cancel(batch: StoredBatch): void {
    const run = this.#runs.get(batch.id);
    // `add` ends what was cancelled while it opened the input.
    if (this.#opening.has(batch.id)) return;
    if (run === undefined) this.finish(batch);
    else this.#end(run, batch);
  }

  /** Writes the files of a batch that no line is missing of. */
  finish(batch: StoredBatch): void {
    void this.#ends.add(() => this.#finish(batch), NOT_ENDED);
  }

  /** Gives up what runs, to be asked again at the next start, and keeps what is there. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#cancelLook();
    const reason = new MeshError('client_closed', 'This node is shutting down.');
    this.#lifetime.abort(reason);
    for (const run of this.#runs.values()) run.abort.abort(reason);
    for (const run of this.#runs.values()) await run.settled();
    await Promise.all([this.#ends.settled(), this.#lookups.settled()]);
    this.#outcomes.close();
    for (const run of this.#runs.values()) await run.close();
    this.#runs.clear();
  }

  /** Never throws: it is nobody's call but a timer's. */
  #look(): void {
    try {
      this.#lookAtAll();
      this.#looksFail = false;
    } catch (err) {
      if (!this.#looksFail) this.#components.logger.error({ err }, 'batches could not be looked at: it is tried again');
      this.#looksFail = true;
    }
  }

  #lookAtAll(): void {
    if (this.#stopping) return;
    const now = this.#components.clock.now();
    const time = nowSeconds();
    for (const run of this.#runs.values()) {
      if (run.isEnding) continue;
      if (run.batch.expiresAt <= time) this.#end(run, this.#expired(run.batch));
      else if (run.isDone(now)) this.#end(run, run.batch);
      else if (this.#components.isOpen() && !this.#outcomes.isStuck)
        for (const queue of run.queues) this.#start(run, queue, now);
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
    const free = room.free(model, run.kind, boundary);
    if (free === null) {
      this.#absent(run, queue, now);
      return;
    }
    queue.absentSince = null;
    const left = Math.min(free - (this.#starting.get(model) ?? 0), this.#options.atOnce - this.#running);
    for (let begun = 0; begun < Math.min(left, BEGUN_AT_ONCE); begun += 1) {
      const line = queue.take(now);
      if (line === null) return;
      run.holdFor(this.#ask(run, queue, line));
    }
    if (left > BEGUN_AT_ONCE) this.#lookSoon();
  }

  /** Never rejects. */
  async #ask(run: BatchRun, queue: BatchQueue, line: PendingLine): Promise<void> {
    const { dispatcher, answer, logger } = this.#components;
    const { batch } = run;
    this.#running += 1;
    this.#starting.set(queue.model, (this.#starting.get(queue.model) ?? 0) + 1);
    let isStarting = true;
    const started = (): void => {
      if (isStarting) this.#starting.set(queue.model, (this.#starting.get(queue.model) ?? 1) - 1);
      isStarting = false;
    };
    const named = { requestId: lineIdentity(batch.id, line.line).requestId, customId: line.customId };
    try {
      const request = await run.request(line);
      const dispatch = dispatcher.dispatch(request, { signal: run.abort.signal, stream: false });
      const answering = answer(request, dispatch);
      // By then it has chosen whom to ask, and its room is taken where everybody sees it.
      setImmediate(started);
      const { body, promptTokens, completionTokens } = await answering;
      const answered = { isOk: true, text: answeredLine(named, body), promptTokens, completionTokens };
      this.#outcomes.add({ batch: batch.seq, line: line.line, ...answered });
    } catch (thrown) {
      const error = toMeshError(thrown);
      if (error.code === 'internal_error')
        logger.warn({ batch: batch.id, line: line.line, err: error }, 'batch line failed');
      this.#failed(run, queue, { line, error, text: () => refusedLine(named, error) });
    } finally {
      started();
      this.#running -= 1;
      this.#lookSoon();
    }
  }

  #failed(
    run: BatchRun,
    queue: BatchQueue,
    { line, error, text }: { line: PendingLine; error: MeshError; text: () => string },
  ): void {
    if (run.abort.signal.aborted) return;
    const verdict = verdictOf(error, line.tries);
    if (verdict.kind === 'final') {
      const refused = { isOk: false, text: text(), promptTokens: 0, completionTokens: 0 };
      this.#outcomes.add({ batch: run.batch.seq, line: line.line, ...refused });
      return;
    }
    const { afterMs, counts } = verdict;
    if (counts) this.#noteTry(run.batch, line);
    const dueAt = this.#components.clock.now() + afterMs;
    queue.again({ ...line, tries: line.tries + (counts ? 1 : 0) }, dueAt);
  }

  /** One that is not noted is forgotten by a restart only. */
  #noteTry({ seq }: StoredBatch, { line }: PendingLine): void {
    const { store, logger } = this.#components;
    try {
      store.tried(seq, line);
    } catch (err) {
      logger.warn({ err }, 'a try of a batch line could not be noted');
    }
  }

  /** Looks further away, and gives the lines up once nobody had the model for long enough. */
  #absent(run: BatchRun, queue: BatchQueue, now: number): void {
    const { store } = this.#components;
    const { model } = queue;
    if (queue.absentSince === null) {
      queue.absentSince = now;
      this.#lookups.begin(model);
    }
    if (now - queue.absentSince < this.#options.absentMs) return;
    queue.absentSince = null;
    const message = `No node within reach had the model '${model}' for ${Math.round(this.#options.absentMs / 60_000)} minutes.`;
    queue.drop();
    const givingUp = (): Promise<void> =>
      expireLines(store, run.batch, { code: 'model_not_available', message }, model);
    run.holdFor(this.#ends.add(givingUp, 'lines of a batch could not be given up'));
  }

  #end(run: BatchRun, batch: StoredBatch): void {
    if (run.isEnding) return;
    run.isEnding = true;
    run.abort.abort(new MeshError('client_closed', 'The batch is over.'));
    void this.#ends.add(async () => {
      await run.settled();
      await run.close();
      this.#runs.delete(batch.id);
      await this.#finish(batch);
    }, NOT_ENDED);
  }

  async #finish({ id }: StoredBatch): Promise<void> {
    const { store } = this.#components;
    this.#outcomes.keep();
    // It may have been cancelled meanwhile.
    const batch = store.require(id);
    if (batch.expiredAt !== undefined) {
      const message = 'This request could not be executed before the completion window expired.';
      await expireLines(store, batch, { code: 'batch_expired', message });
    }
    // Over already: this is another try, after its lines could not be removed.
    if (!isOver(batch.state)) {
      const isWhole = batch.cancellingAt !== undefined || store.pendingCount(batch.seq) === 0;
      if (!isWhole) throw new MeshError('internal_error', `lines of ${id} have no outcome`);
      await writeOutput(store, batch, this.#lifetime.signal);
    }
    while (!this.#stopping && store.removeFinished()) await nextTurn();
  }
}
