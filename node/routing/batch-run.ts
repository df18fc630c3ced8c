/** One batch while it runs: its lines, those that are being asked, and its input file. */
import { type FileHandle, open } from 'node:fs/promises';
import { choicesOf } from '../../protocols/inference/bodies/completion-prompts.ts';
import { parseEmbeddingBody } from '../../protocols/inference/bodies/embedding-body.ts';
import { parseBody } from '../../protocols/inference/bodies/openai-body.ts';
import type { InferenceRequest } from '../../protocols/inference/events.ts';
import { MeshError } from '../common/errors.ts';
import type { BatchStore, PendingLine, StoredBatch } from '../storage/batch-store.ts';
import { readLine } from '../storage/batch-store-input.ts';
import { BATCH_ENDPOINTS, type BatchEndpoint, isMistake, lineIdentity, readBatchLine } from './batch-line.ts';
import { BatchQueue } from './batch-queue.ts';

export class BatchRun {
  readonly batch: StoredBatch;
  readonly queues: readonly BatchQueue[];
  /** Aborts what runs of it. */
  readonly abort = new AbortController();
  /** It takes no more lines: it is being ended. */
  isEnding = false;
  readonly #input: FileHandle;
  readonly #held = new Set<Promise<void>>();

  private constructor(store: BatchStore, batch: StoredBatch, input: FileHandle) {
    this.batch = batch;
    this.#input = input;
    const models = store.pendingModels(batch.seq);
    this.queues = models.map((model) => new BatchQueue({ store }, { batch: batch.seq, model }));
  }

  /** @throws what opening the input file throws. */
  static async open(store: BatchStore, batch: StoredBatch): Promise<BatchRun> {
    return new BatchRun(store, batch, await open(store.files.path(batch.inputFileId), 'r'));
  }

  /** The batch is not done before this is, which never rejects: a line that is being asked, lines that are given up. */
  holdFor(work: Promise<void>): void {
    this.#held.add(work);
    void work.then(() => this.#held.delete(work));
  }

  /** Nothing runs of it any more. */
  async settled(): Promise<void> {
    while (this.#held.size > 0) await Promise.all(this.#held);
  }

  /** Of all its lines. */
  get kind(): (typeof BATCH_ENDPOINTS)[BatchEndpoint] {
    return BATCH_ENDPOINTS[this.batch.endpoint as BatchEndpoint];
  }

  isDone(now: number): boolean {
    return this.#held.size === 0 && this.queues.every((queue) => queue.isEmpty(now));
  }

  /**
   * The line as a request.
   *
   * @throws MeshError `invalid_request` that names the field.
   */
  async request({ line, at, sizeBytes }: PendingLine): Promise<InferenceRequest> {
    const { endpoint, id, boundary } = this.batch;
    const { kind } = this;
    const read = readBatchLine(await readLine(this.#input, at, sizeBytes), endpoint);
    if (isMistake(read)) throw new MeshError('invalid_request', read.message);
    const body = Buffer.from(JSON.stringify(read.body));
    const limit = boundary === null ? {} : { boundary };
    const common = { ...lineIdentity(id, line), kind, model: read.model, body, ...limit, priority: 'batch' as const };
    if (kind !== 'embedding') return { ...common, choices: choicesOf(parseBody(kind, body)) };
    parseEmbeddingBody(body);
    return common;
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await this.#input.close();
  }
}
