/** What runs and waits on one cluster, by FIRST's qstat function: asked in the background, never for a request. */
import { deadline } from '../../common/clock.ts';
import { MeshError } from '../../common/errors.ts';
import { type ClusterJobs, readJobs } from './endpoint-state.ts';
import type { WatchComponents, WatchingAccount } from './endpoint-watch.ts';
import { packArguments } from './packing.ts';
import { Recurring } from './recurring.ts';
import { resultText } from './task-report.ts';

const EVERY_MS = 60_000;
const RESULT_MS = 30_000;
/** What was said stays true for so long at most. */
const KEPT_MS = 300_000;
const TASK_MS = 600_000;

export class JobsWatch {
  readonly #components: WatchComponents;
  readonly #place: { readonly endpointUuid: string; readonly functionUuid: string };
  readonly #recurring: Recurring;
  /** Submitted, and without a result so far. */
  #task: { readonly account: WatchingAccount; readonly id: string; readonly at: number } | null = null;
  #jobs: { readonly said: ClusterJobs; readonly at: number } | null = null;

  constructor(components: WatchComponents, place: { readonly endpointUuid: string; readonly functionUuid: string }) {
    this.#components = components;
    this.#place = place;
    this.#recurring = new Recurring(components, (signal) => this.#look(signal));
  }

  /** Null before the first answer, and once it is five minutes old. */
  get jobs(): ClusterJobs | null {
    if (this.#jobs === null || this.#components.clock.now() - this.#jobs.at > KEPT_MS) return null;
    return this.#jobs.said;
  }

  look(): void {
    this.#recurring.now();
  }

  async stop(): Promise<void> {
    await this.#recurring.stop();
  }

  /** The one that was submitted before, while it may still come: a dead endpoint would else collect one a minute. */
  async #taskOf(account: WatchingAccount, signal: AbortSignal): Promise<string> {
    const now = this.#components.clock.now();
    if (this.#task?.account !== account || now - this.#task.at > TASK_MS) {
      const id = await account.submit({ ...this.#place, packed: packArguments([]) }, signal);
      this.#task = { account, id, at: now };
    }
    return this.#task.id;
  }

  async #look(signal: AbortSignal): Promise<number> {
    const { clock, account, onChange } = this.#components;
    const late = (): MeshError => new MeshError('peer_unreachable', 'The qstat function gave no result in time');
    using bound = deadline(clock, RESULT_MS, late, signal);
    try {
      const used = account();
      if (used === null) return EVERY_MS;
      const report = await used.result(await this.#taskOf(used, bound.signal), bound.signal);
      this.#task = null;
      this.#jobs = { said: readJobs(resultText(report, 'The qstat function')), at: clock.now() };
      onChange();
    } catch (error) {
      if (signal.aborted) throw error;
      // The endpoints' own status still says whether they can be used.
    }
    return EVERY_MS;
  }
}
