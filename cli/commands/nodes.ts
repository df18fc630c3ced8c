/** `meshnode nodes add | list | remove | test`: whatever was said by hand of other nodes; servers also by `backends`. */
import {
  ADD_FLAGS,
  addServer,
  patchOf,
  printNodes,
  REGISTRY_SETTINGS,
  registryOf,
  removeCommand,
  testCommand,
} from '../backend-registry.ts';
import { type Command, group } from '../command.ts';
import { flagText, required } from '../flag-values.ts';

const list: Command = {
  name: 'nodes list',
  positionals: '',
  maxPositionals: 0,
  summary: 'what was registered or set by hand',
  settings: REGISTRY_SETTINGS,
  extra: [],
  run: async (invocation) =>
    printNodes(invocation, (await registryOf(invocation)).list(), {
      none: 'None yet: meshnode nodes add http://HOST:PORT registers an OpenAI-compatible server.',
      columns: ['NAME', 'URL', 'PRIORITY', 'BOUNDARY', 'KEY', 'FINGERPRINT'],
      row: ({ name, url, manifest, priority, boundary, hasKey, fingerprint }) => [
        name,
        url ?? manifest ?? 'peer',
        String(priority),
        boundary,
        hasKey ? 'yes' : 'no',
        fingerprint,
      ],
    }),
};

const add: Command = {
  name: 'nodes add',
  positionals: 'URL',
  maxPositionals: 1,
  summary: 'register an OpenAI-compatible server and try it',
  settings: REGISTRY_SETTINGS,
  extra: [{ flag: 'name', argument: 'N', help: 'what people call it (its host)' }, ...ADD_FLAGS],
  run(invocation) {
    const url = required(invocation, 0, 'meshnode nodes add URL, for example http://192.168.1.20:8000');
    const name = flagText(invocation, 'name');
    const patch = { ...patchOf(invocation), ...(name !== null && { name }) };
    return addServer(invocation, { url, patch, group: 'nodes' });
  },
};

export const nodes: Command = {
  ...group('nodes', 'what was said by hand of other nodes', [list, add, removeCommand('nodes'), testCommand('nodes')]),
  hidden: true,
};
