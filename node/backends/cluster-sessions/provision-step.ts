/** What to do next for a model that is wanted and does not run: decisions only. Pure. */
import type { ModelService } from './model-services.ts';
import type { ProvisionRule } from './provision-rule.ts';

/** What is known at one look. */
export interface ProvisionFacts {
  readonly rule: ProvisionRule;
  /** Null: the cluster has none of this name. */
  readonly service: ModelService | null;
  /** Its model is in the lists, so that requests can go there. */
  readonly isLive: boolean;
  /** This start has asked the cluster for it already. */
  readonly hasAsked: boolean;
  /** Other services of this node's rules that run on the cluster, by name. */
  readonly othersRunning: readonly string[];
  /** What the cluster says of failed replicas since this start began. */
  readonly problems: readonly string[];
}

/** fail: one sentence that says what to do. list: replicas answer, the model is still to be seen in the lists. */
export type ProvisionStep =
  | { readonly act: 'create' | 'scale' | 'wait' | 'list' | 'done' }
  | { readonly act: 'fail'; readonly reason: string };

export function nextStep(facts: ProvisionFacts): ProvisionStep {
  const { rule, service, isLive, hasAsked, othersRunning, problems } = facts;
  if (isLive && service !== null && service.active > 0) return { act: 'done' };
  if (service !== null && service.active > 0) return { act: 'list' };
  const [problem] = problems.slice(-1);
  if (problem !== undefined) return { act: 'fail', reason: `its replica did not start: ${problem}` };
  if (service !== null && service.desired > 0) return { act: 'wait' };
  if (hasAsked) return { act: 'fail', reason: 'somebody deleted it or scaled it to zero meanwhile' };
  if (othersRunning.length >= rule.maxRunning) return { act: 'fail', reason: overCap(rule, othersRunning) };
  if (service !== null) return { act: 'scale' };
  if (rule.template !== null) return { act: 'create' };
  return { act: 'fail', reason: `there is no service "${rule.service}": create it, or give its rule an image` };
}

function overCap({ cluster, maxRunning }: ProvisionRule, running: readonly string[]): string {
  const fix = `park one (meshnode cluster service scale ${cluster} ${running[0]} 0), or raise --max`;
  return `${running.join(', ')} run${running.length === 1 ? 's' : ''} there and the limit is ${maxRunning}: ${fix}`;
}

const FIRST_BACK_OFF_MS = 15_000;
const LONGEST_BACK_OFF_MS = 600_000;

/** How long nothing is tried after so many failures in a row, milliseconds. */
export function backOffMs(failures: number): number {
  return Math.min(LONGEST_BACK_OFF_MS, FIRST_BACK_OFF_MS * 2 ** Math.min(Math.max(failures - 1, 0), 10));
}

const SOONEST_RETRY_MS = 5000;
const LATEST_RETRY_MS = 120_000;
const UNKNOWN_RETRY_MS = 30_000;

/** When it makes sense to come back to a start that goes on. `lastMs`: how long the last one took; null unknown. */
export function retryAfterMs(elapsedMs: number, lastMs: number | null): number {
  const restMs = lastMs === null ? UNKNOWN_RETRY_MS : lastMs - elapsedMs;
  return Math.min(LATEST_RETRY_MS, Math.max(SOONEST_RETRY_MS, restMs));
}

/** 0 to 1 by how long the last start took; null unknown. Never done before it is. */
export function fractionOf(elapsedMs: number, lastMs: number | null): number | null {
  return lastMs === null || lastMs <= 0 ? null : Math.min(0.99, elapsedMs / lastMs);
}

export interface Use {
  readonly inFlight: number;
  /** When the last request ended, or the service was first seen running. */
  readonly lastUsedAt: number;
}

/** Is it to be scaled to zero? */
export function isIdle({ idleMs }: Pick<ProvisionRule, 'idleMs'>, { inFlight, lastUsedAt }: Use, now: number): boolean {
  return idleMs !== null && inFlight === 0 && now - lastUsedAt >= idleMs;
}
