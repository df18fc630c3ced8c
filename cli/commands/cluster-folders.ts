/** `meshnode cluster folders NAME`: vFolders, where models and data lie. */
import { type Command, EXIT } from '../command.ts';
import { table } from '../terminal.ts';
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
      const { terminal } = invocation;
      const folders = await services.folders(signal);
      if (invocation.json) terminal.json({ folders });
      else if (folders.length === 0)
        terminal.line('None that this key may see: folders are made in the web interface.');
      else {
        const rows = folders.map(({ name, usage, permission, host }) => [name, usage, permission, host]);
        for (const line of table(['FOLDER', 'FOR', 'MAY', 'ON'], rows)) terminal.line(line);
      }
      return EXIT.ok;
    }),
};
