/** `meshnode cluster service list | create | scale | delete`: model services of a Backend.AI cluster. */
import { type ModelService, resourceDemand, SERVICE_RESOURCES } from '../../node/index.ts';
import { answer, answerList } from '../answer.ts';
import { CliError, type Command, EXIT, group } from '../command.ts';
import { flagInteger, flagText, required } from '../flag-values.ts';
import { clean } from '../terminal.ts';
import { CLUSTER_SETTINGS, DEMAND_FLAGS, demandOf, imageOf, onCluster } from './cluster-work.ts';

const MAX_REPLICAS = 64;
const common = { settings: CLUSTER_SETTINGS, extra: [] };

const list: Command = {
  ...common,
  name: 'cluster service list',
  positionals: 'NAME',
  maxPositionals: 1,
  summary: 'your model services there',
  run: (invocation) =>
    onCluster(invocation, 'meshnode cluster service list NAME', async ({ record, services }, signal) => {
      const found = await services.list(signal);
      return answerList(
        invocation,
        { services: found },
        {
          none: `None: meshnode cluster service create ${clean(record.name)} SERVICE`,
          columns: ['SERVICE', 'REPLICAS', 'ENDPOINT'],
          rows: found.map((each) => [each.name, `${each.active}/${each.desired}`, each.endpoint ?? '-']),
        },
      );
    }),
};

const CREATE = 'meshnode cluster service create NAME SERVICE --image I --folder F';

const create: Command = {
  ...common,
  name: 'cluster service create',
  positionals: 'NAME SERVICE',
  maxPositionals: 2,
  summary: 'serve the model in a vFolder',
  extra: [
    ...DEMAND_FLAGS,
    { flag: 'folder', argument: 'F', help: 'the vFolder that holds the model' },
    { flag: 'replicas', argument: 'N', help: 'how many run (1); 0 = parked' },
    { flag: 'public', argument: '', help: 'without a token: for everybody who reaches it' },
  ],
  run: (invocation) =>
    onCluster(invocation, CREATE, async ({ record, services }, signal) => {
      const name = required(invocation, 1, CREATE);
      const folder = flagText(invocation, 'folder');
      if (folder === null) {
        throw new CliError(`which vFolder? --folder F, one of meshnode cluster folders ${record.name}`, EXIT.usage);
      }
      const template = {
        ...resourceDemand(imageOf(invocation), demandOf(invocation), SERVICE_RESOURCES),
        ...{ name, folder, replicas: flagInteger(invocation, 'replicas', 0, MAX_REPLICAS) ?? 1 },
        isPublic: invocation.flags['public'] !== undefined,
      };
      const service = await services.create(template, signal);
      const told = `${clean(name)} is created; its model is in the lists when a replica answers.`;
      return answer(invocation, { service }, told);
    }),
};

const SCALE = 'meshnode cluster service scale NAME SERVICE N';

const scale: Command = {
  ...common,
  name: 'cluster service scale',
  positionals: 'NAME SERVICE N',
  maxPositionals: 3,
  summary: 'how many replicas run; 0 parks it',
  run: (invocation) =>
    onCluster(invocation, SCALE, async ({ services }, signal) => {
      const name = required(invocation, 1, SCALE);
      const text = required(invocation, 2, SCALE);
      const to = /^\d{1,2}$/.test(text) && Number(text) <= MAX_REPLICAS ? Number(text) : null;
      if (to === null) throw new CliError(`"${text}" replicas: expected 0 to ${MAX_REPLICAS}`, EXIT.usage);
      const service: ModelService = await services.get(name, signal);
      await services.scale(service.id, to, signal);
      const told = to === 0 ? `${clean(name)} is parked.` : `${clean(name)}: ${to} wanted.`;
      return answer(invocation, { service: { ...service, desired: to } }, told);
    }),
};

const DELETE = 'meshnode cluster service delete NAME SERVICE';

const remove: Command = {
  ...common,
  name: 'cluster service delete',
  positionals: 'NAME SERVICE',
  maxPositionals: 2,
  summary: 'end it for good; its vFolder stays',
  run: (invocation) =>
    onCluster(invocation, DELETE, async ({ services }, signal) => {
      const service = await services.get(required(invocation, 1, DELETE), signal);
      await services.delete(service.id, signal);
      return answer(invocation, { deleted: service }, `${clean(service.name)} is deleted.`);
    }),
};

export const clusterService: Command = group('cluster service', 'model services there', [list, create, scale, remove]);
