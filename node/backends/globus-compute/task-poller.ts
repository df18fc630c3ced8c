/** One question for all tasks of an account that are out, as seldom as they allow. */
import type { CancelTimer, Clock } from '../../common/clock.ts';
import { MeshError, toMeshError } from '../../common/errors.ts';
import type { TaskReport } from './task-report.ts';

export interface TaskPollerComponents {
  readonly clock: Clock;
  /** Which of these have ended. @throws MeshError. */
  readonly ask: (taskIds: readonly string[], signal: AbortSignal) => Promise<readonly TaskReport[]>;
}

const FIRST_MS = 500;
const LONGEST_MS = 2000;
const GROWTH = 1.5;
/** Of one question. */
const MAX_TASKS = 256;
/** What asking again would not change. */
const FINAL = new Set(['unauthorized', 'forbidden']);

interface Awaited {
  settle(report: TaskReport): void;
  fail(error: MeshError): void;
}

export class TaskPoller {
  readonly #components: TaskPollerComponents;
  readonly #life = new AbortController();
  readonly #awaited = new Map<string, Awaited>();
  #delayMs = FIRST_MS;
  #isAsking = false;
  #dueAt = Number.POSITIVE_INFINITY;
  #cancel: CancelTimer = () => {};

  constructor(components: TaskPollerComponents) {
    this.#components = components;
  }

  /**
   * Resolves when the task ended. A service that cannot be reached meanwhile is asked again: the task goes on there.
   *
   * @throws the signal's reason, or MeshError when the account is refused or the poller closed.
   */
  wait(taskId: string, signal: AbortSignal): Promise<TaskReport> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const end = (): void => {
        this.#awaited.delete(taskId);
        signal.removeEventListener('abort', onAbort);
      };
      const onAbort = (): void => {
        end();
        reject(signal.reason as Error);
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#awaited.set(taskId, {
        settle: (report) => {
          end();
          resolve(report);
        },
        fail: (error) => {
          end();
          reject(error);
        },
      });
      this.#delayMs = FIRST_MS;
      this.#askIn(FIRST_MS);
    });
  }

  /** Fails whoever waits. */
  close(): void {
    this.#cancel();
    this.#life.abort();
    const gone = new MeshError('draining', 'The Globus account is used no longer');
    for (const awaited of [...this.#awaited.values()]) awaited.fail(gone);
  }

  /** Whichever is sooner: this, or what was planned. */
  #askIn(delayMs: number): void {
    const dueAt = this.#components.clock.now() + delayMs;
    if (this.#isAsking || dueAt >= this.#dueAt || this.#life.signal.aborted) return;
    this.#cancel();
    this.#dueAt = dueAt;
    this.#cancel = this.#components.clock.after(delayMs, () => {
      this.#dueAt = Number.POSITIVE_INFINITY;
      void this.#ask();
    });
  }

  /** Never rejects. */
  async #ask(): Promise<void> {
    const taskIds = [...this.#awaited.keys()];
    if (taskIds.length === 0) return;
    this.#isAsking = true;
    let hasEnded = false;
    for (let at = 0; at < taskIds.length; at += MAX_TASKS) {
      hasEnded = (await this.#askFor(taskIds.slice(at, at + MAX_TASKS))) || hasEnded;
    }
    this.#isAsking = false;
    // Where one has ended, others are likely to; what came in meanwhile set the delay back by itself.
    this.#delayMs = hasEnded ? FIRST_MS : Math.min(LONGEST_MS, this.#delayMs * GROWTH);
    if (this.#awaited.size > 0) this.#askIn(this.#delayMs);
  }

  async #askFor(taskIds: readonly string[]): Promise<boolean> {
    try {
      const reports = await this.#components.ask(taskIds, this.#life.signal);
      for (const report of reports) this.#awaited.get(report.taskId)?.settle(report);
      return reports.length > 0;
    } catch (thrown) {
      const error = toMeshError(thrown, 'upstream_error');
      if (FINAL.has(error.code)) for (const taskId of taskIds) this.#awaited.get(taskId)?.fail(error);
      return false;
    }
  }
}
