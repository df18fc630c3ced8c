/** `meshnode cluster folders NAME`: vFolders, where models and data lie. */
import { answerList } from '../answer.ts';
import type { Command } from '../command.ts';
import { CLUSTER_SETTINGS, onCluster } from './cluster-work.ts';

export const clusterFolders: Command = {
  name: 'cluster folders',
  positionals: 'NAME',
  maxPositionals: 1,
  summary: 'vFolders there; services take those for models',
  settings: CLUSTER_SETTINGS,
  extra: [],
  run: (invocation) =>
    onCluster(invocation, 'meshnode cluster folders NAME', async ({ services }, signal) => {
      const folders = await services.folders(signal);
      return answerList(
        invocation,
        { folders },
        {
          none: 'None that this key may see: folders are made in the web interface.',
          columns: ['FOLDER', 'FOR', 'MAY', 'ON'],
          rows: folders.map(({ name, usage, permission, host }) => [name, usage, permission, host]),
        },
      );
    }),
};
