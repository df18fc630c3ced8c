/** `meshnode fixtures load | list | remove | credentials`: the endpoints of FIRST's fixtures. */
import { resolve } from 'node:path';
import {
  credentialsOf,
  type FixtureCredentials,
  globusAccountProblem,
  openFixtureStore,
  openSecretStore,
  readFixtureFiles,
  type SecretStore,
} from '../../node/index.ts';
import { answer, answerList } from '../answer.ts';
import { CliError, type Command, configOf, EXIT, group, type Invocation, refusedAsUsage } from '../command.ts';
import { flagText, required } from '../flag-values.ts';
import { secretsAccess } from '../passphrase-input.ts';
import { readKey } from '../secret-input.ts';
import { clean } from '../terminal.ts';

const MAX_FILES = 64;
const settings = ['data-dir'];
const CLIENT_ID = /^[\x21-\x7e]{1,256}$/;

const storeOf = (invocation: Invocation) => openFixtureStore(configOf(invocation).config.dataDir);

const list: Command = {
  name: 'fixtures list',
  positionals: '',
  maxPositionals: 0,
  summary: 'what was loaded; peers shows how each does',
  settings,
  extra: [],
  async run(invocation) {
    const fixtures = (await storeOf(invocation)).current();
    const { clusters, endpoints, federated } = fixtures;
    const rows = [
      ...clusters.map((each) => [`${each.kind} cluster`, each.name, each.frameworks.join(','), '-', '-']),
      ...endpoints.map((each) => [each.kind, each.slug, each.cluster, each.model, each.shared === true ? 'yes' : 'no']),
      ...federated.map((each) => ['federated', each.slug, `${each.targets.length} targets`, each.targetModel, '-']),
    ];
    return answerList(invocation, fixtures, {
      none: 'None yet: meshnode fixtures load fixtures/endpoints.json takes them from FIRST as they are.',
      columns: ['KIND', 'SLUG', 'WHERE', 'MODEL', 'SHARED'],
      rows,
    });
  },
};

const load: Command = {
  name: 'fixtures load',
  positionals: 'FILE…',
  maxPositionals: MAX_FILES,
  summary: 'take over clusters, endpoints, federated endpoints',
  settings,
  extra: [
    { flag: 'share', argument: '', help: 'other nodes may use them through this one' },
    { flag: 'dry-run', argument: '', help: 'only say what would be done' },
  ],
  async run(invocation) {
    const { positionals, machine } = invocation;
    required(invocation, 0, 'meshnode fixtures load FILE…, for example fixtures/endpoints.json');
    const isDry = invocation.flags['dry-run'] !== undefined;
    const paths = positionals.map((path) => resolve(machine.cwd, path));
    const store = await storeOf(invocation);
    const read = await refusedAsUsage(() =>
      readFixtureFiles(paths, { share: invocation.flags['share'] !== undefined }),
    );
    const change = isDry ? store.outlook(read) : await refusedAsUsage(() => store.merge(read));
    const { added, replaced, unchanged } = change;
    const counts = `${added.length} added, ${replaced.length} replaced, ${unchanged.length} unchanged`;
    return answer(
      invocation,
      { dryRun: isDry, ...change },
      ...added.map((slug) => `added      ${clean(slug)}`),
      ...replaced.map((slug) => `replaced   ${clean(slug)}`),
      `${counts}${isDry ? ' (nothing was done: --dry-run)' : ''}.`,
      ...shownKeys(read.fixtures.endpoints),
    );
  },
};

const remove: Command = {
  name: 'fixtures remove',
  positionals: 'SLUG',
  maxPositionals: 1,
  summary: 'forget an endpoint, a federated one or a cluster',
  settings,
  extra: [],
  async run(invocation) {
    const slug = required(invocation, 0, 'meshnode fixtures remove SLUG, as in meshnode fixtures list');
    await (await storeOf(invocation)).remove(slug);
    return answer(invocation, { removed: slug }, `${clean(slug)} is forgotten.`);
  },
};

const credentials: Command = {
  name: 'fixtures credentials',
  positionals: '[CLUSTER|SLUG]',
  maxPositionals: 1,
  summary: 'the account or key that it needs',
  settings: ['data-dir', 'passphrase-file', 'secrets-store'],
  extra: [
    { flag: 'id', argument: 'ID', help: 'the client id of the service account' },
    { flag: 'key-stdin', argument: '', help: 'its secret, or the key, is the first line of stdin' },
    { flag: 'remove', argument: '', help: 'forget what is kept' },
  ],
  async run(invocation) {
    const { positionals, flags } = invocation;
    const target = credentialsOf((await storeOf(invocation)).current(), positionals[0] ?? null);
    const secrets = openSecretStore(configOf(invocation).config, secretsAccess(invocation));
    await secrets.load();
    if (flags['remove'] === undefined) return await keep(invocation, target, secrets);
    const wasKept = await secrets.delete(target.secretName);
    const told = wasKept ? `Forgotten: the credentials of ${clean(target.of)}.` : 'None were kept.';
    return answer(invocation, { removed: wasKept }, told);
  },
};

/** Keeps what standard input has, and tries it. */
async function keep(invocation: Invocation, target: FixtureCredentials, secrets: SecretStore): Promise<number> {
  const { terminal, flags, machine } = invocation;
  if (flags['key-stdin'] === undefined) {
    throw new CliError('something is missing: --key-stdin, with the secret on standard input', EXIT.usage);
  }
  const isGlobus = target.kind === 'globus';
  const id = flagText(invocation, 'id') ?? '';
  if (isGlobus && !CLIENT_ID.test(id)) {
    throw new CliError('something is missing: --id ID, the client id of the service account', EXIT.usage);
  }
  const secret = await readKey(terminal);
  await refusedAsUsage(() => secrets.set(target.secretName, isGlobus ? JSON.stringify({ id, secret }) : secret));
  const problem = isGlobus ? await globusAccountProblem({ id, secret }, machine.env) : null;
  const how = problem === null ? (isGlobus ? ['Globus takes them.'] : []) : [`problem: ${clean(problem)}`];
  const told = `Kept: the credentials of ${clean(target.of)}.`;
  return answer(invocation, { of: target.of, problem }, told, ...how);
}

/** Which variable's value goes where: whoever loads a file of somebody else should see it. */
function shownKeys(
  endpoints: Awaited<ReturnType<typeof readFixtureFiles>>['fixtures']['endpoints'],
): readonly string[] {
  return endpoints.flatMap(({ slug, direct }) =>
    direct === undefined || direct.apiKeyEnvName === null
      ? []
      : [clean(`${slug}: ${new URL(direct.apiUrl).host} is shown the key in $${direct.apiKeyEnvName}`)],
  );
}

export const fixtures: Command = group('fixtures', "the endpoints of FIRST's fixtures", [
  list,
  load,
  remove,
  credentials,
]);
