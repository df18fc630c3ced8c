/** `meshnode backends list | add | test | remove`: OpenAI-compatible servers that this node fronts. */
import { resolve } from 'node:path';
import { manifestPlace, type RemoteNode } from '../../node/index.ts';
import {
  ADD_FLAGS,
  addServer,
  isServer,
  patchOf,
  printNodes,
  REGISTRY_SETTINGS,
  registryOf,
  removeCommand,
  testCommand,
} from '../backend-registry.ts';
import { CliError, type Command, EXIT, group, type Invocation, refusedAsUsage } from '../command.ts';
import { flagText, required } from '../flag-values.ts';

const ADD_USAGE = 'meshnode backends add NAME URL, for example: backends add vllm http://192.168.1.20:8000';

const list: Command = {
  name: 'backends list',
  positionals: '',
  maxPositionals: 0,
  summary: 'those that are registered or configured',
  settings: [...REGISTRY_SETTINGS, 'upstream'],
  extra: [],
  run: async (invocation) =>
    printNodes(invocation, (await registryOf(invocation)).list().filter(isServer), {
      none: 'None yet: meshnode backends add NAME URL registers an OpenAI-compatible server.',
      columns: ['NAME', 'URL', 'PRIORITY', 'BOUNDARY', 'KEY', 'SHARED', 'FROM'],
      row: (node) => [
        node.name,
        node.url ?? `manifest ${node.manifest}`,
        String(node.priority),
        node.boundary,
        keyInWords(node),
        node.shared ? 'yes' : 'no',
        node.origin === 'config' ? 'configuration' : 'backends add',
      ],
    }),
};

const add: Command = {
  name: 'backends add',
  positionals: 'NAME [URL]',
  maxPositionals: 2,
  summary: 'register an OpenAI-compatible server',
  settings: REGISTRY_SETTINGS,
  extra: [
    ...ADD_FLAGS,
    { flag: 'key-env', argument: 'VAR', help: 'its key is in this variable of the running node' },
    { flag: 'share', argument: '', help: 'other nodes may use it through this one' },
    { flag: 'manifest', argument: 'URL|FILE', help: 'a status manifest names servers and models' },
  ],
  async run(invocation) {
    const name = required(invocation, 0, ADD_USAGE);
    const manifest = await manifestFlag(invocation);
    const url = manifest === null ? required(invocation, 1, ADD_USAGE) : (invocation.positionals[1] ?? null);
    const keyEnv = flagText(invocation, 'key-env');
    if (keyEnv !== null && invocation.flags['key-stdin'] !== undefined) {
      throw new CliError('--key-env and --key-stdin contradict each other: give one of them', EXIT.usage);
    }
    const patch = {
      ...patchOf(invocation),
      name,
      shared: invocation.flags['share'] !== undefined,
      ...(keyEnv !== null && { keyEnv }),
      ...(manifest !== null && { manifest }),
    };
    return await addServer(invocation, { url, patch, group: 'backends' });
  },
};

/** Absolute, since the running node has another working directory. */
async function manifestFlag(invocation: Invocation): Promise<string | null> {
  const text = flagText(invocation, 'manifest');
  if (text === null) return null;
  return await refusedAsUsage(() => manifestPlace(text, (path) => resolve(invocation.machine.cwd, path)));
}

function keyInWords({ keyEnv, hasKey }: RemoteNode): string {
  if (keyEnv === null) return hasKey ? 'yes' : 'no';
  return hasKey ? `$${keyEnv}` : `$${keyEnv} (not set here)`;
}

export const backends: Command = group('backends', 'OpenAI-compatible servers that this node fronts', [
  list,
  add,
  testCommand('backends'),
  removeCommand('backends'),
]);
