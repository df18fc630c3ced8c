/** Files and batches as their owner sees them; opens the store with the first use, and goes on at the start with what was left. */
import { randomBytes } from 'node:crypto';
import type { Boundary } from '../../protocols/inference/events.ts';
import { MeshError } from '../common/errors.ts';
import type { Startable } from '../common/lifecycle.ts';
import { BatchStore, isOver, type StoredBatch } from '../storage/batch-store.ts';
import type { FilePage, StoredFile } from '../storage/batch-store-files.ts';
import { hasBatchStore } from '../storage/batch-store-open.ts';
import { readInput } from './batch-input.ts';
import { BATCH_ENDPOINTS } from './batch-line.ts';
import { nextTurn, nowSeconds } from './batch-output.ts';
import { BatchRunner, type BatchRunnerComponents, type BatchRunnerOptions } from './batch-runner.ts';

export interface BatchServiceComponents extends Omit<BatchRunnerComponents, 'store'> {
  /** Says one line to the owner. */
  readonly warn: (message: string) => void;
}

export interface BatchServiceOptions extends Partial<BatchRunnerOptions> {
  readonly dataDir: string;
  /** Of one file, bytes. Default 200 MB, as at OpenAI. */
  readonly fileBytes?: number;
  /** Of all files together, bytes. Default 8 GB. */
  readonly storedBytes?: number;
  /** How many files there may be. Default 10,000. */
  readonly mostFiles?: number;
  /** Batches that are not over. Default 100. */
  readonly mostOpen?: number;
}

export interface NewBatch {
  readonly inputFileId: string;
  readonly endpoint: string;
  /** As the client named it, and in seconds. */
  readonly window: string;
  readonly windowSeconds: number;
  readonly metadata: Readonly<Record<string, string>> | null;
  readonly boundary: Boundary | null;
}

export const MOST_FILE_BYTES = 200_000_000;
const MOST_STORED_BYTES = 8_000_000_000;
/** Empty files cost something too, and so does every batch, before it has asked anything. */
const MOST_FILES = 10_000;
const MOST_OPEN = 100;
const OPEN_RETRY_MS = 60_000;

interface Opened {
  readonly store: BatchStore;
  readonly runner: BatchRunner;
}

export class BatchService implements Startable {
  readonly #components: BatchServiceComponents;
  readonly #options: BatchServiceOptions;
  readonly #reading = new Map<string, Promise<void>>();
  readonly #lifetime = new AbortController();
  /** Of files that are being taken in: they are not in the store yet. */
  #uploadingBytes = 0;
  #opened: Opened | null = null;

  constructor(components: BatchServiceComponents, options: BatchServiceOptions) {
    this.#components = components;
    this.#options = options;
  }

  /** Lines that are being asked. */
  get running(): number {
    return this.#opened?.runner.running ?? 0;
  }

  async start(): Promise<void> {
    if (!hasBatchStore(this.#options.dataDir)) return;
    const { store, runner } = this.#open();
    await store.files.sweep();
    while (store.removeFinished()) await nextTurn();
    for (const batch of store.open()) {
      if (batch.state === 'validating') this.#read(batch);
      else if (batch.state === 'in_progress' || this.#isUnfinished(store, batch)) await this.#run(batch);
      else runner.finish(batch);
    }
  }

  /** Lines that run are asked again at the next start. */
  async stop(): Promise<void> {
    this.#lifetime.abort(new MeshError('client_closed', 'This node is shutting down.'));
    await Promise.allSettled([...this.#reading.values()]);
    const opened = this.#opened;
    if (opened === null) return;
    await opened.runner.stop();
    this.#opened = null;
    opened.store.close();
  }

  /** Takes a file in. @throws MeshError `payload_too_large`, and what the source throws. */
  async upload(filename: string, source: AsyncIterable<Uint8Array>): Promise<StoredFile> {
    const { files } = this.#open().store;
    const { fileBytes = MOST_FILE_BYTES, storedBytes = MOST_STORED_BYTES, mostFiles = MOST_FILES } = this.#options;
    if (files.count() >= mostFiles) throw tooLarge(`There are ${mostFiles} files already; delete some.`);
    const keptBytes = files.totalBytes();
    const full = tooLarge(`All files together have at most ${storedBytes} bytes; delete some.`);
    const file = await files.create(filename, 'batch');
    let bytes = 0;
    try {
      for await (const part of source) {
        bytes += part.byteLength;
        this.#uploadingBytes += part.byteLength;
        if (bytes > fileBytes) throw tooLarge(`A file has at most ${fileBytes} bytes; split it.`);
        if (keptBytes + this.#uploadingBytes > storedBytes) throw full;
        await file.write(part);
      }
      await file.sync();
      // Others may have come to their end meanwhile.
      if (files.totalBytes() + bytes > storedBytes) throw full;
      const { store } = this.#open();
      store.transaction(() => files.register(file.file()), true);
      return file.file();
    } catch (error) {
      await file.discard();
      throw error;
    } finally {
      this.#uploadingBytes -= bytes;
    }
  }

  listFiles(page: FilePage): StoredFile[] {
    return this.#open().store.files.list(page);
  }

  /** @throws MeshError `not_found`. */
  file(id: string): StoredFile {
    const file = this.#open().store.files.get(id);
    if (file !== null) return file;
    throw new MeshError('not_found', `There is no file "${id.slice(0, 64)}".`);
  }

  /** Where the content of a file lies. @throws MeshError `not_found`. */
  path(id: string): string {
    return this.#open().store.files.path(this.file(id).id);
  }

  /** @throws MeshError `not_found`; `invalid_request` while a batch needs it. */
  async removeFile(id: string): Promise<void> {
    const { store } = this.#open();
    this.file(id);
    const user = store.open().find(({ inputFileId }) => inputFileId === id);
    if (user !== undefined) {
      throw new MeshError('invalid_request', `The batch ${user.id} still reads this file: cancel it first.`);
    }
    await store.files.remove(id);
  }

  /** Begins a batch; it is read, and then run, in the background. @throws MeshError that names the field. */
  create({ inputFileId, endpoint, window, windowSeconds, metadata, boundary }: NewBatch): StoredBatch {
    const { store } = this.#open();
    if (!Object.hasOwn(BATCH_ENDPOINTS, endpoint)) {
      const known = Object.keys(BATCH_ENDPOINTS).join(', ');
      throw new MeshError('invalid_request', `endpoint must be one of ${known}.`, { param: 'endpoint' });
    }
    if (store.files.get(inputFileId) === null) {
      const message = `There is no file "${inputFileId.slice(0, 64)}": upload it first.`;
      throw new MeshError('invalid_request', message, { param: 'input_file_id' });
    }
    const { mostOpen = MOST_OPEN } = this.#options;
    if (store.open().length >= mostOpen) {
      const message = `${mostOpen} batches are at work already: wait for one, or cancel one.`;
      throw new MeshError('rate_limited', message, { retryAfterMs: OPEN_RETRY_MS });
    }
    const createdAt = nowSeconds();
    const facts = {
      endpoint,
      inputFileId,
      window,
      createdAt,
      expiresAt: createdAt + windowSeconds,
      metadata,
      boundary,
    };
    const batch = store.add(`batch_${randomBytes(12).toString('hex')}`, facts);
    this.#read(batch);
    return batch;
  }

  /** @throws MeshError `not_found`. */
  get(id: string): StoredBatch {
    return this.#open().store.require(id);
  }

  /** Newest first, one more than asked for where there is one. */
  list(page: { readonly after?: string | undefined; readonly limit: number }): StoredBatch[] {
    return this.#open().store.list(page);
  }

  /** Ends a batch; what was answered is kept. One that is over, or ends already, stays as it is. @throws MeshError. */
  cancel(id: string): StoredBatch {
    const { store, runner } = this.#open();
    const batch = store.require(id);
    if (batch.state === 'cancelling' || batch.state === 'cancelled') return batch;
    if (isOver(batch.state) || batch.state === 'finalizing') {
      throw new MeshError('invalid_request', `The batch is ${batch.state}: it cannot be cancelled any more.`);
    }
    const cancelling = store.transaction(() => store.update(id, 'cancelling', { cancellingAt: nowSeconds() }), true);
    // One that is still read ends when it was read.
    if (!this.#reading.has(id)) runner.cancel(cancelling);
    return cancelling;
  }

  #open(): Opened {
    if (this.#lifetime.signal.aborted) throw new MeshError('draining', 'This node is shutting down.');
    if (this.#opened === null) {
      const store = new BatchStore(this.#components, this.#options);
      this.#opened = { store, runner: new BatchRunner({ ...this.#components, store }, this.#options) };
    }
    return this.#opened;
  }

  /** Was it ended although some of its answers could not be kept? */
  #isUnfinished(store: BatchStore, { seq, cancellingAt, expiredAt }: StoredBatch): boolean {
    return cancellingAt === undefined && expiredAt === undefined && store.pendingCount(seq) > 0;
  }

  #read(batch: StoredBatch): void {
    const reading = this.#validate(batch)
      .catch((err: unknown) => {
        if (!this.#lifetime.signal.aborted) this.#components.logger.error({ err, batch: batch.id }, 'batch not read');
      })
      .finally(() => this.#reading.delete(batch.id));
    this.#reading.set(batch.id, reading);
  }

  async #validate(batch: StoredBatch): Promise<void> {
    const { store, runner } = this.#open();
    const { id } = batch;
    const errors = await readInput(store, batch, this.#lifetime.signal).catch((error: unknown) => {
      if (this.#lifetime.signal.aborted) throw error;
      const reason = (error as NodeJS.ErrnoException).code ?? 'error';
      return [
        { code: 'unreadable_file', message: `The input file cannot be read (${reason}).`, line: null, param: null },
      ];
    });
    const now = store.require(id);
    if (now.state === 'cancelling') runner.cancel(now);
    else if (errors !== null)
      store.transaction(() => store.update(id, 'failed', { failedAt: nowSeconds(), errors }), true);
    else {
      await this.#run(store.transaction(() => store.update(id, 'in_progress', { inProgressAt: nowSeconds() })));
    }
  }

  async #run(batch: StoredBatch): Promise<void> {
    const { store, runner } = this.#open();
    try {
      await runner.add(batch);
    } catch (error) {
      const reason = (error as NodeJS.ErrnoException).code ?? 'error';
      const message = `The input file cannot be read (${reason}).`;
      const errors = [{ code: 'unreadable_file', message, line: null, param: null }];
      store.transaction(() => store.update(batch.id, 'failed', { failedAt: nowSeconds(), errors }), true);
    }
  }
}

const tooLarge = (message: string): MeshError => new MeshError('payload_too_large', message, { param: 'file' });
