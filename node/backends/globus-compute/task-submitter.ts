/** Hands tasks to the service. Those that wait for their turn to the same endpoint go in one request. */
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import { MeshError, toMeshError } from '../../common/errors.ts';

/** One call of a registered function. */
export interface GlobusTask {
  readonly endpointUuid: string;
  readonly functionUuid: string;
  /** As `packArguments` made it. */
  readonly packed: string;
}

export interface TaskSubmitterComponents {
  /** Resolves when a request may be sent. */
  readonly turn: (signal: AbortSignal) => Promise<void>;
  /** Sends tasks of one endpoint: the ids of each function's tasks in order. @throws MeshError. */
  readonly send: (tasks: readonly GlobusTask[], signal: AbortSignal) => Promise<Readonly<Record<string, unknown>>>;
}

interface Pending {
  readonly task: GlobusTask;
  readonly settle: (taskId: string) => void;
  readonly fail: (error: MeshError) => void;
  tries: number;
}

const MAX_TASKS = 64;
/** Characters; the service takes 10 MB in all. */
const MAX_PACKED = 4 * 1024 * 1024;
const MAX_TRIES = 3;
/** What may be the fault of one of several. */
const DIVISIBLE = new Set(['payload_too_large', 'invalid_request', 'forbidden']);

export class TaskSubmitter {
  readonly #components: TaskSubmitterComponents;
  readonly #life = new AbortController();
  /** By endpoint. */
  readonly #queues = new Map<string, Pending[]>();
  readonly #running = new Set<readonly Pending[]>();

  constructor(components: TaskSubmitterComponents) {
    this.#components = components;
  }

  /**
   * The id of the task. A task that was sent when the signal aborts runs all the same.
   *
   * @throws MeshError `payload_too_large`, `peer_unreachable`, `rate_limited` (after waiting for it), …
   */
  submit(task: GlobusTask, signal: AbortSignal): Promise<string> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const onAbort = (): void => {
        this.#queueOf(task).splice(0, Number.POSITIVE_INFINITY, ...this.#queueOf(task).filter((each) => each !== own));
        reject(signal.reason as Error);
      };
      const over = (): void => signal.removeEventListener('abort', onAbort);
      const own: Pending = {
        task,
        tries: 0,
        settle: (taskId) => {
          over();
          resolve(taskId);
        },
        fail: (error) => {
          over();
          reject(error);
        },
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#enqueue([own]);
    });
  }

  close(): void {
    this.#life.abort(new MeshError('draining', 'The Globus account is used no longer'));
  }

  #queueOf({ endpointUuid }: GlobusTask): Pending[] {
    const queue = this.#queues.get(endpointUuid) ?? [];
    this.#queues.set(endpointUuid, queue);
    return queue;
  }

  #enqueue(pending: readonly Pending[]): void {
    const [first] = pending;
    if (first === undefined) return;
    const queue = this.#queueOf(first.task);
    queue.push(...pending);
    if (!this.#running.has(queue)) void this.#run(queue);
  }

  /** Until the queue is empty. Never rejects. */
  async #run(queue: Pending[]): Promise<void> {
    this.#running.add(queue);
    while (queue.length > 0) {
      try {
        await this.#components.turn(this.#life.signal);
      } catch (error) {
        for (const each of queue.splice(0)) each.fail(toMeshError(error, 'draining'));
        break;
      }
      const batch = queue.splice(0, fitting(queue));
      if (batch.length > 0) await this.#send(batch);
    }
    this.#running.delete(queue);
  }

  /** Never rejects. */
  async #send(batch: readonly Pending[]): Promise<void> {
    try {
      const json = await this.#components.send(
        batch.map(({ task }) => task),
        this.#life.signal,
      );
      const taskIds = readTaskIds(json, batch);
      for (const [index, each] of batch.entries()) each.settle(taskIds[index] ?? '');
    } catch (thrown) {
      const error = toMeshError(thrown, 'upstream_error');
      if (batch.length > 1 && DIVISIBLE.has(error.code)) {
        for (const each of batch) {
          await this.#components.turn(this.#life.signal).catch(() => {});
          await this.#send([each]);
        }
        return;
      }
      const isTooSoon = error.code === 'rate_limited';
      for (const each of batch) {
        each.tries += 1;
        if (isTooSoon && each.tries < MAX_TRIES) this.#enqueue([each]);
        else each.fail(error);
      }
    }
  }
}

/** How many of the first ones go together. */
function fitting(queue: readonly Pending[]): number {
  let size = 0;
  let count = 0;
  for (const { task } of queue.slice(0, MAX_TASKS)) {
    size += task.packed.length;
    if (count > 0 && size > MAX_PACKED) break;
    count += 1;
  }
  return count;
}

/** In the order of the batch. */
function readTaskIds(json: Readonly<Record<string, unknown>>, batch: readonly Pending[]): readonly string[] {
  const { tasks } = json;
  const next = new Map<string, number>();
  return batch.map(({ task: { functionUuid } }) => {
    const at = next.get(functionUuid) ?? 0;
    next.set(functionUuid, at + 1);
    const ids = isRecord(tasks) ? tasks[functionUuid] : null;
    const id: unknown = Array.isArray(ids) ? ids[at] : null;
    if (typeof id === 'string' && id !== '') return id;
    throw new MeshError('upstream_error', 'Globus Compute took a task without giving its id');
  });
}
