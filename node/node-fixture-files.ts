/** FIRST's fixtures for commands: files are read, kept, and their service account is tried. */
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { systemClock } from './common/clock.ts';
import { MeshError, toMeshError } from './common/errors.ts';
import { prepareDataDir } from './storage/data-dir.ts';
import {
  type FixtureSet,
  mergeFixtures,
  NO_FIXTURES,
  readFixtures,
  withSharing,
} from './storage/fixtures/fixture-set.ts';
import { type FixtureStore, openFixtures } from './storage/fixtures/fixture-store.ts';
import type { FixtureEndpoint, Fixtures } from './storage/fixtures/fixture-types.ts';
import { directSecretName, GLOBUS_DEFAULT, globusSecretName } from './storage/fixtures/secret-names.ts';

const MAX_FILE_BYTES = 16 * 1024 * 1024;
const PROBE_MS = 20_000;

/** What was loaded into a data directory, read once. A running node takes changes over within a second. */
export async function openFixtureStore(dataDir: string): Promise<FixtureStore> {
  await prepareDataDir(dataDir);
  return await openFixtures(dataDir);
}

/**
 * Several files as one; all of them are read before anything is said of them. `share`: for other nodes as well.
 *
 * @throws MeshError `invalid_request` that names file, entry and field.
 */
export async function readFixtureFiles(
  paths: readonly string[],
  { share }: { readonly share: boolean },
): Promise<FixtureSet> {
  const sets = await Promise.all(paths.map((path) => readFixtureFile(path, share)));
  return sets.reduce((all, set) => mergeFixtures(all, set).set, NO_FIXTURES);
}

async function readFixtureFile(path: string, share: boolean): Promise<FixtureSet> {
  const name = basename(path);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw invalid(`${path} cannot be read (${(error as NodeJS.ErrnoException).code})`);
  }
  if (text.length > MAX_FILE_BYTES) throw invalid(`${path} is larger than ${MAX_FILE_BYTES} bytes`);
  let json: unknown;
  try {
    json = JSON.parse(text) as unknown;
  } catch (error) {
    // The parser's own message would quote the file.
    const at = /position (\d+)/.exec((error as Error).message)?.[1];
    const line = at === undefined ? '' : `, line ${text.slice(0, Number(at)).split('\n').length}`;
    throw invalid(`${name} is no JSON${line}`);
  }
  return readFixtures(share ? withSharing(json) : json, name);
}

/** Whose credentials a name means: all clusters', one cluster's, or those of one direct endpoint. */
export type FixtureCredentials =
  | { readonly kind: 'globus'; readonly secretName: string; readonly of: string }
  | { readonly kind: 'direct'; readonly secretName: string; readonly of: string };

/** @throws MeshError `not_found` that names what there is. */
export function credentialsOf({ clusters, endpoints }: Fixtures, name: string | null): FixtureCredentials {
  if (name === null)
    return { kind: 'globus', secretName: globusSecretName(GLOBUS_DEFAULT), of: 'every Globus cluster' };
  const direct = endpoints.find((each): each is FixtureEndpoint => each.slug === name && each.kind === 'direct');
  if (direct !== undefined) return { kind: 'direct', secretName: directSecretName(name), of: name };
  const ofGlobus = endpoints.filter(({ kind }) => kind === 'globus').map(({ cluster }) => cluster);
  const names = new Set([...clusters.filter(({ kind }) => kind === 'globus').map((each) => each.name), ...ofGlobus]);
  if (names.has(name)) return { kind: 'globus', secretName: globusSecretName(name), of: `the cluster ${name}` };
  const slugs = endpoints.filter(({ kind }) => kind === 'direct').map(({ slug }) => slug);
  const there = [...names, ...slugs].slice(0, 20).join(', ');
  const known = there === '' ? 'no fixture is loaded' : `there are: ${there}`;
  throw new MeshError('not_found', `There is no cluster and no direct endpoint "${name.slice(0, 200)}"; ${known}`);
}

/** Does Globus take this service account? Null when it does, else one sentence that says why not. Throws nothing. */
export async function globusAccountProblem(
  credentials: { readonly id: string; readonly secret: string },
  env: Readonly<Record<string, string | undefined>>,
): Promise<string | null> {
  const { GlobusAccount, globusHosts } = await import('./backends/globus-compute/globus-account.ts');
  try {
    const account = new GlobusAccount({ clock: systemClock, credentials }, globusHosts(env));
    try {
      await account.verify(AbortSignal.timeout(PROBE_MS));
      return null;
    } finally {
      account.close();
    }
  } catch (error) {
    return toMeshError(error).message;
  }
}

const invalid = (message: string): MeshError => new MeshError('invalid_request', message, { param: 'fixtures' });
