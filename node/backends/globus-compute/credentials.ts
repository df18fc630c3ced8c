/** Where the credentials of fixtures come from: the store of secrets first, then the environment. */
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import type { FixtureEndpoint } from '../../storage/fixtures/fixture-types.ts';
import { directSecretName, GLOBUS_DEFAULT, globusSecretName } from '../../storage/fixtures/secret-names.ts';
import { parseJson } from '../openai-http/parse-json.ts';
import type { GlobusCredentials } from './globus-account.ts';

export interface CredentialSources {
  /** A secret by name; null when there is none. */
  readonly secret: (name: string) => string | null;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** Those of Globus's own tools, then FIRST's. */
const ACCOUNT_VARIABLES = [
  ['GLOBUS_COMPUTE_CLIENT_ID', 'GLOBUS_COMPUTE_CLIENT_SECRET'],
  ['SERVICE_ACCOUNT_ID', 'SERVICE_ACCOUNT_SECRET'],
] as const;

/** The service account of an endpoint: its cluster's, the default one, its fixture's variables, the usual variables. */
export function globusCredentials(
  { cluster, globus }: Pick<FixtureEndpoint, 'cluster' | 'globus'>,
  { secret, env }: CredentialSources,
): GlobusCredentials | null {
  const kept = secret(globusSecretName(cluster)) ?? secret(globusSecretName(GLOBUS_DEFAULT));
  if (kept !== null) return readCredentials(kept);
  const { clientIdEnvName: id, clientSecretEnvName: key } = globus ?? {};
  const own = id === undefined || key === undefined ? [] : [[id, key] as const];
  for (const [idName, secretName] of [...own, ...ACCOUNT_VARIABLES]) {
    const found = { id: env[idName] ?? '', secret: env[secretName] ?? '' };
    if (found.id !== '' && found.secret !== '') return found;
  }
  return null;
}

/** The key of a direct endpoint; null when there is none. */
export function directKey(
  { slug, direct }: Pick<FixtureEndpoint, 'slug' | 'direct'>,
  { secret, env }: CredentialSources,
): string | null {
  const name = direct?.apiKeyEnvName ?? null;
  const ofEnv = name === null ? '' : (env[name] ?? '');
  return secret(directSecretName(slug)) ?? (ofEnv === '' ? null : ofEnv);
}

function readCredentials(text: string): GlobusCredentials | null {
  const json = parseJson(text);
  if (!isRecord(json) || typeof json['id'] !== 'string' || typeof json['secret'] !== 'string') return null;
  return { id: json['id'], secret: json['secret'] };
}
