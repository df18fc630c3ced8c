/** `meshnode cluster add | list | test | remove`: Backend.AI clusters, with the keys to sign requests by. */
import { type ClusterProbe, type ClusterRecord, lookAtCluster, openClusterRegistry } from '../../node/index.ts';
import { answer, answerList } from '../answer.ts';
import { CliError, type Command, configOf, EXIT, group, type Invocation, refusedAsUsage } from '../command.ts';
import { flagInteger, flagText, required } from '../flag-values.ts';
import { secretsAccess } from '../passphrase-input.ts';
import { readKey } from '../secret-input.ts';
import { clean } from '../terminal.ts';
import { clusterFolders } from './cluster-folders.ts';
import { clusterProvision } from './cluster-provision.ts';
import { clusterService } from './cluster-service.ts';
import { clusterSession } from './cluster-session.ts';

const MAX_PRIORITY = 1_000;
const settings = ['data-dir', 'passphrase-file'];

const registryOf = (invocation: Invocation) =>
  openClusterRegistry(configOf(invocation).config, secretsAccess(invocation));

const list: Command = {
  name: 'cluster list',
  positionals: '',
  maxPositionals: 0,
  summary: 'what is registered, and how each cluster does now',
  settings,
  extra: [],
  async run(invocation) {
    const registry = await registryOf(invocation);
    const records = registry.list();
    if (records.length > 0) await registry.unlock();
    const probes = await Promise.all(records.map(({ slug }) => lookAtCluster(registry, slug)));
    const clusters = records.map((record, index) => ({ ...record, ...probes[index] }));
    const rows = clusters.map(({ name, endpoint, status, priority, share, services }) => [
      name,
      endpoint,
      status ?? 'unreachable',
      String(priority),
      share ? 'yes' : 'no',
      [...new Set(services?.flatMap(({ models }) => models))].join(', '),
    ]);
    answerList(
      invocation,
      { clusters },
      {
        none: 'None yet: meshnode cluster add NAME URL --access-key K --secret-stdin registers one.',
        columns: ['NAME', 'URL', 'STATUS', 'PRIORITY', 'SHARED', 'MODELS'],
        rows,
      },
    );
    if (invocation.json) return EXIT.ok;
    for (const { name, problem } of clusters)
      if (typeof problem === 'string') invocation.terminal.line(`${name}: ${clean(problem)}`);
    return EXIT.ok;
  },
};

const add: Command = {
  name: 'cluster add',
  positionals: 'NAME URL',
  maxPositionals: 2,
  summary: 'register a Backend.AI cluster and try it',
  settings,
  extra: [
    { flag: 'access-key', argument: 'K', help: 'whose requests these are; not secret' },
    { flag: 'secret-stdin', argument: '', help: 'its secret key is the first line of stdin' },
    { flag: 'allow-http', argument: '', help: 'take an endpoint without TLS' },
    { flag: 'priority', argument: 'N', help: '-1000 to 1000, higher is preferred (0)' },
    { flag: 'share', argument: '', help: 'let other nodes use it through this one' },
  ],
  async run(invocation) {
    const { terminal, flags } = invocation;
    const usage = 'meshnode cluster add NAME URL --access-key K --secret-stdin';
    const name = required(invocation, 0, usage);
    const endpoint = required(invocation, 1, usage);
    const accessKey = flagText(invocation, 'access-key');
    const isComplete = accessKey !== null && flags['secret-stdin'] !== undefined;
    if (!isComplete) throw new CliError(`both keys are wanted: ${usage}`, EXIT.usage);
    const priority = flagInteger(invocation, 'priority', -MAX_PRIORITY, MAX_PRIORITY) ?? 0;
    const secret = await readKey(terminal, '--secret-stdin');
    const registry = await registryOf(invocation);
    const [allowHttp, share] = [flags['allow-http'] !== undefined, flags['share'] !== undefined];
    const cluster = { name, endpoint, accessKey, allowHttp, priority, share };
    const record = await refusedAsUsage(() => registry.add(cluster, secret));
    await registry.unlock();
    const probe = await lookAtCluster(registry, record.slug);
    if (invocation.json) terminal.json({ cluster: record, probe });
    else {
      terminal.line(`Registered ${clean(record.name)} (cluster:${record.slug}), priority ${record.priority}.`);
      report(invocation, record, probe);
      if (!probe.ok)
        terminal.line(`It is kept: add it again with what was wrong put right, or see meshnode cluster test`);
    }
    return probe.ok ? EXIT.ok : EXIT.failure;
  },
};

const test: Command = {
  name: 'cluster test',
  positionals: 'NAME',
  maxPositionals: 1,
  summary: 'does it answer, take our signature, and run what?',
  settings,
  extra: [],
  async run(invocation) {
    const name = required(invocation, 0, 'meshnode cluster test NAME, as in meshnode cluster list');
    const registry = await registryOf(invocation);
    const cluster = registry.get(name);
    await registry.unlock();
    const probe = await lookAtCluster(registry, cluster.slug);
    if (invocation.json) invocation.terminal.json({ cluster, probe });
    else report(invocation, cluster, probe);
    return probe.ok ? EXIT.ok : EXIT.failure;
  },
};

const remove: Command = {
  name: 'cluster remove',
  positionals: 'NAME',
  maxPositionals: 1,
  summary: 'forget one, with its keys',
  settings,
  extra: [],
  async run(invocation) {
    const name = required(invocation, 0, 'meshnode cluster remove NAME, as in meshnode cluster list');
    const removed = await (await registryOf(invocation)).remove(name);
    const told = `${clean(removed.name)} (cluster:${removed.slug}) is forgotten, and its keys with it.`;
    return answer(invocation, { removed }, told);
  },
};

function report({ terminal }: Invocation, { name }: ClusterRecord, probe: ClusterProbe): void {
  const { status, problem, apiVersion, services } = probe;
  const version = apiVersion === null ? '' : `, API ${clean(apiVersion)}`;
  const many = services.length === 1 ? '1 service' : `${services.length} services`;
  terminal.line(`${clean(name)}: ${status}${version}${probe.ok ? `, ${many} with models` : ''}`);
  if (problem !== null) terminal.line(`problem: ${clean(problem)}`);
  for (const service of services) {
    terminal.line(`  ${clean(service.name)}: ${clean(service.problem ?? service.models.join(', '))}`);
  }
}

export const cluster: Command = group('cluster', 'use a Backend.AI cluster', [
  ...([list, add, test, remove] as const),
  ...[clusterSession, clusterService, clusterFolders, clusterProvision],
]);
