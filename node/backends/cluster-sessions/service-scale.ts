/** The two things that are done to a provisioned service: it is brought up, and it is scaled to zero. */
import { type Clock, deadline, sleep } from '../../common/clock.ts';
import { MeshError, toMeshError } from '../../common/errors.ts';
import type { ManagerCaller } from './manager-caller.ts';
import { type ModelService, ModelServices } from './model-services.ts';
import type { ProvisionRule } from './provision-rule.ts';
import { nextStep } from './provision-step.ts';

/** The cluster as a provision sees it. */
export interface ProvisionedCluster {
  readonly name: string;
  readonly manager: ManagerCaller;
  /** Asks for its services now rather than at the next poll. */
  look(): void;
}

export interface ServiceScaleComponents {
  readonly clock: Clock;
  /** Null: it is not registered any more. */
  readonly cluster: () => ProvisionedCluster | null;
  /** Can requests be sent to the service now? */
  readonly isLive: () => boolean;
  /** Services of other rules of the same cluster that run or start. */
  readonly othersRunning: () => readonly string[];
}

/** All in milliseconds. */
export interface ServiceScaleOptions {
  /** Between two looks at a service that starts: at first, and at last. */
  readonly lookMs: { readonly first: number; readonly last: number };
  /** A start that takes longer has failed. */
  readonly startBoundMs: number;
}

/** One start. */
interface Run {
  looks: number;
  /** The cluster was asked for a replica: it is ours to end. */
  hasAsked: boolean;
  /** Problems of the service before. */
  known: number;
  /** Looks in a row that were not answered. */
  missed: number;
}

export const DEFAULT_SERVICE_SCALE: ServiceScaleOptions = {
  lookMs: { first: 1000, last: 5000 },
  startBoundMs: 20 * 60_000,
};

const PARK_BOUND_MS = 30_000;
/** A manager that does not answer for so many looks in a row ends a start. */
const MISSED_LOOKS = 5;
const PASSING = ['peer_unreachable', 'upstream_error', 'rate_limited', 'request_timeout'];

export class ServiceScale {
  readonly #components: ServiceScaleComponents;
  readonly #rule: ProvisionRule;
  readonly #options: ServiceScaleOptions;

  constructor(components: ServiceScaleComponents, rule: ProvisionRule, options: ServiceScaleOptions) {
    this.#components = components;
    this.#rule = rule;
    this.#options = options;
  }

  /**
   * Resolves when requests can be sent there. A start of its own that fails leaves nothing running.
   *
   * @throws MeshError that says what is wrong, or the signal's reason: then the service stays as it is.
   */
  async start(signal: AbortSignal): Promise<void> {
    const { clock } = this.#components;
    const late = (): Error =>
      new MeshError('request_timeout', `it did not run within ${Math.round(this.#options.startBoundMs / 1000)} s`);
    using bound = deadline(clock, this.#options.startBoundMs, late, signal);
    const run: Run = { looks: 0, hasAsked: false, known: 0, missed: 0 };
    let { first: lookMs } = this.#options.lookMs;
    try {
      while (!(await this.#step(run, bound.signal))) {
        await sleep(clock, lookMs, bound.signal);
        lookMs = Math.min(this.#options.lookMs.last, lookMs * 1.3);
      }
    } catch (thrown) {
      // What does not start goes on taking resources there otherwise.
      if (run.hasAsked && !signal.aborted) await this.park(signal).catch(() => {});
      throw thrown;
    }
  }

  /** One look and what follows from it. Returns whether it runs. */
  async #step(run: Run, signal: AbortSignal): Promise<boolean> {
    const rule = this.#rule;
    const cluster = this.#components.cluster();
    if (cluster === null) throw new MeshError('not_found', `there is no cluster "${rule.cluster}" any more`);
    const services = new ModelServices({ manager: cluster.manager, cluster: cluster.name });
    try {
      const service = await services.find(rule.service, signal);
      const problems = service === null ? [] : await problemsOf(services, service, signal);
      // Those of earlier starts say nothing about this one.
      if (run.looks === 0) run.known = problems.length;
      run.looks += 1;
      const { isLive, othersRunning } = this.#components;
      const { hasAsked, known } = run;
      const about = { rule, service, isLive: isLive(), hasAsked, othersRunning: othersRunning() };
      const step = nextStep({ ...about, problems: problems.slice(known) });
      if (step.act === 'fail') throw new MeshError('model_starting', step.reason);
      if (step.act === 'create' || step.act === 'scale') {
        await this.#ask(services, service, signal);
        run.hasAsked = true;
      }
      if (step.act === 'list') cluster.look();
      run.missed = 0;
      return step.act === 'done';
    } catch (thrown) {
      const error = toMeshError(thrown);
      run.missed += 1;
      if (signal.aborted || run.looks === 0 || !PASSING.includes(error.code) || run.missed >= MISSED_LOOKS) throw error;
      return false;
    }
  }

  async #ask(services: ModelServices, service: ModelService | null, signal: AbortSignal): Promise<void> {
    if (service !== null) await services.scale(service.id, 1, signal);
    else if (this.#rule.template !== null) await services.create(this.#rule.template, signal);
  }

  /** Scales it to zero, unless it is. @throws MeshError when the manager does not. */
  async park(signal: AbortSignal): Promise<void> {
    const { clock } = this.#components;
    const cluster = this.#components.cluster();
    if (cluster === null) return;
    const services = new ModelServices({ manager: cluster.manager, cluster: cluster.name });
    const late = (): Error => new MeshError('request_timeout', 'the manager did not answer');
    using bound = deadline(clock, PARK_BOUND_MS, late, signal);
    const service = await services.find(this.#rule.service, bound.signal);
    if (service !== null && service.desired > 0) await services.scale(service.id, 0, bound.signal);
    cluster.look();
  }
}

/** None where the manager is too old to tell. */
async function problemsOf(
  services: ModelServices,
  { id }: ModelService,
  signal: AbortSignal,
): Promise<readonly string[]> {
  try {
    return await services.problems(id, signal);
  } catch (thrown) {
    if (toMeshError(thrown).code === 'not_found') return [];
    throw thrown;
  }
}
