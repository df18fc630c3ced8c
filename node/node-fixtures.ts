/** FIRST's fixtures of a node and the endpoints that they name, put together. */
import { globusHosts } from './backends/globus-compute/globus-account.ts';
import { GlobusSites } from './backends/globus-compute/globus-sites.ts';
import type { Clock } from './common/clock.ts';
import type { Logger } from './common/logger.ts';
import { FixtureStore } from './storage/fixtures/fixture-store.ts';
import type { StreamCallbacks } from './storage/fixtures/fixture-types.ts';
import type { SecretStore } from './storage/secret-store.ts';

export interface FixtureComponents {
  readonly secrets: SecretStore;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Gets one line for people. */
  readonly warn: (message: string) => void;
  /** Absent, or null: answers from Globus Compute come whole. */
  readonly callbacks?: StreamCallbacks | null;
}

/** `sites` starts and stops `fixtures`. @throws MeshError when a variable names no usable place of Globus. */
export function openFixtureSites(
  { secrets, clock, logger, warn, callbacks }: FixtureComponents,
  { dataDir }: { readonly dataDir: string },
): { readonly fixtures: FixtureStore; readonly sites: GlobusSites } {
  const fixtures = new FixtureStore({ clock, warn }, { dataDir });
  const parts = { fixtures, secrets, clock, logger, env: process.env };
  const sites = new GlobusSites(callbacks === undefined || callbacks === null ? parts : { ...parts, callbacks }, {
    hosts: globusHosts(process.env),
  });
  return { fixtures, sites };
}
