/** What the status manifest of a direct cluster says of one model there: pure. */
import type { EndpointState } from '../../storage/fixtures/fixture-types.ts';
import type { StatusManifest } from '../../storage/status-manifest.ts';

/** It takes no requests. */
export interface SaidIdle {
  readonly state: Extract<EndpointState, 'stopped' | 'queued'>;
  /** One sentence. */
  readonly problem: string;
}

/**
 * Null where the manifest leaves it to the server: one of its entries for the model is `Live`, it has none, or nobody could
 * read it. As FIRST reads it, `Stopped` is stopped and every other word is queued; requests go to neither.
 */
export function saidIdle(model: string, manifest: StatusManifest | null): SaidIdle | null {
  const entries = manifest?.entries.filter(({ models }) => models.includes(model)) ?? [];
  const [first] = entries;
  if (first === undefined || entries.some(({ isLive }) => isLive)) return null;
  const isStopped = entries.every(({ status }) => status === 'Stopped');
  const problem = `the status manifest of its cluster says ${first.status}`;
  return { state: isStopped ? 'stopped' : 'queued', problem };
}
