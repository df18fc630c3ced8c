/** What a death in the middle of an answer costs the client, and how often a healthy peer is taken for dead. Linux, root. */
import { lanSwitchUnavailable } from '../test/support/lan-switch.ts';
import { failoverDeaths } from './failover-deaths.ts';
import { failoverLoss } from './failover-loss.ts';
import type { BenchResult } from './result.ts';

export async function benchFailover(): Promise<BenchResult> {
  const unavailable = lanSwitchUnavailable();
  if (unavailable !== null) throw new Error(unavailable);
  return { name: 'failover', rows: [...(await failoverDeaths()), ...(await failoverLoss())] };
}
