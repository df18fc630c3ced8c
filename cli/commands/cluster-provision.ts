/** `meshnode cluster provision NAME [MODEL]`: models that the cluster starts when somebody asks for them. */
import { type ClusterWork, type ProvisionRule, provisionRule } from '../../node/index.ts';
import { answer, answerList } from '../answer.ts';
import { CliError, type Command, EXIT, type Invocation } from '../command.ts';
import { flagInteger, flagText, required } from '../flag-values.ts';
import { formatDuration } from '../format.ts';
import { clean } from '../terminal.ts';
import { CLUSTER_SETTINGS, DEMAND_FLAGS, demandOf, flagDuration, onCluster } from './cluster-work.ts';

const MAX_RUNNING = 64;
const USAGE = 'meshnode cluster provision NAME MODEL --image I --folder F';

export const clusterProvision: Command = {
  name: 'cluster provision',
  positionals: 'NAME [MODEL]',
  maxPositionals: 2,
  summary: 'start a model there on its first use',
  settings: CLUSTER_SETTINGS,
  extra: [
    ...DEMAND_FLAGS,
    { flag: 'folder', argument: 'F', help: 'the vFolder with the model (called like the model)' },
    { flag: 'service', argument: 'S', help: 'without --image: one that exists and is only scaled' },
    { flag: 'idle', argument: 'TIME', help: 'scaled to 0 after it; forever = never (30m)' },
    { flag: 'wait', argument: 'TIME', help: 'how long clients wait that do not stream (60s)' },
    { flag: 'max', argument: 'N', help: 'started only while fewer such services run there (2)' },
    { flag: 'off', argument: '', help: 'do not start it any more; what runs goes on' },
  ],
  run: (invocation) =>
    onCluster(invocation, USAGE, async (cluster, signal) => {
      const model = invocation.positionals[1];
      if (model === undefined) return list(invocation, cluster);
      if (invocation.flags['off'] !== undefined) return await off(invocation, cluster, model);
      return await set(invocation, cluster, signal);
    }),
};

function list(invocation: Invocation, { record, rules }: ClusterWork): number {
  const found = rules.list().filter(({ cluster }) => cluster === record.slug);
  return answerList(
    invocation,
    { rules: found },
    {
      none: `None: ${USAGE.replace('NAME', clean(record.name))}`,
      columns: ['MODEL', 'SERVICE', 'IDLE AFTER', 'WAIT'],
      rows: found.map((rule) => [rule.model, rule.service, idleText(rule), formatDuration(rule.waitMs)]),
    },
  );
}

async function off(invocation: Invocation, { record, rules }: ClusterWork, model: string): Promise<number> {
  const removed = await rules.remove(record.slug, model);
  const park = `meshnode cluster service scale ${clean(record.name)} ${removed.service} 0`;
  const told = `${clean(model)} is not started any more. Where it runs, ${park} ends it.`;
  return answer(invocation, { removed }, told);
}

async function set(invocation: Invocation, cluster: ClusterWork, signal: AbortSignal): Promise<number> {
  const { record, rules } = cluster;
  const model = required(invocation, 1, USAGE);
  const [folder, service] = [flagText(invocation, 'folder'), flagText(invocation, 'service')];
  const [idle, wait] = [flagDuration(invocation, 'idle'), flagDuration(invocation, 'wait')];
  const maxRunning = flagInteger(invocation, 'max', 1, MAX_RUNNING);
  const rule = provisionRule({
    ...{ cluster: record.slug, model, image: flagText(invocation, 'image') },
    ...demandOf(invocation),
    ...(folder !== null && { folder }),
    ...(service !== null && { service }),
    ...(idle !== null && { idleMs: Number.isFinite(idle) ? idle : null }),
    ...(wait !== null && { waitMs: wait }),
    ...(maxRunning !== null && { maxRunning }),
  });
  await check(cluster, rule, signal);
  const kept = await rules.set(rule, { keepsName: service === null });
  return answer(
    invocation,
    { rule: kept },
    `${clean(model)} is started on ${clean(record.name)} when it is asked for, as ${kept.service}.`,
    `Idle after ${idleText(kept)}. A running node takes this over within a second.`,
  );
}

/** What can be seen to be wrong now is not left for the first client to find. */
async function check({ record, services }: ClusterWork, rule: ProvisionRule, signal: AbortSignal): Promise<void> {
  const { template } = rule;
  if (template === null) {
    await services.get(rule.service, signal);
    return;
  }
  const folders = await services.folders(signal);
  const found = folders.find(({ name, id }) => name === template.folder || id === template.folder);
  if (found?.usage === 'model') return;
  const names = folders.filter(({ usage }) => usage === 'model').map(({ name }) => clean(name));
  const there = names.length === 0 ? 'there is none for models' : `for models there are: ${names.join(', ')}`;
  const what = found === undefined ? 'has no vFolder' : 'has a vFolder that is not for models:';
  throw new CliError(`${clean(record.name)} ${what} "${clean(template.folder)}"; ${there} (--folder F)`, EXIT.usage);
}

const idleText = ({ idleMs }: ProvisionRule): string => (idleMs === null ? 'never' : formatDuration(idleMs));
