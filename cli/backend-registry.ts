/** What `meshnode backends` and `meshnode nodes` have in common: servers that speak HTTP, registered and tried. */
import {
  BOUNDARIES,
  type Boundary,
  openRegistry,
  probeHttpNode,
  type RemoteNode,
  type RemoteNodePatch,
} from '../node/index.ts';
import { answer, answerList } from './answer.ts';
import { CliError, type Command, configOf, EXIT, type ExtraFlag, type Invocation, refusedAsUsage } from './command.ts';
import { flagInteger, flagText, required } from './flag-values.ts';
import { secretsAccess } from './passphrase-input.ts';
import { readKey } from './secret-input.ts';
import { clean } from './terminal.ts';

const MAX_PRIORITY = 1_000;
const MODELS_SHOWN = 10;

/** Settings that all of these commands take. */
export const REGISTRY_SETTINGS: readonly string[] = ['data-dir', 'passphrase-file'];

/** Flags of every `add`. */
export const ADD_FLAGS: readonly ExtraFlag[] = [
  { flag: 'priority', argument: 'N', help: '-1000 to 1000, higher is preferred (0)' },
  { flag: 'boundary', argument: 'B', help: 'mesh, private-cluster or public (by address)' },
  { flag: 'key-stdin', argument: '', help: 'its API key is the first line of stdin' },
];

/** The registry of this data dir, read once, with the servers of the configuration. */
export const registryOf = (invocation: Invocation) =>
  openRegistry(configOf(invocation).config, secretsAccess(invocation));

/** What the flags of `ADD_FLAGS` say, the key aside. @throws CliError (usage) */
export function patchOf(invocation: Invocation): RemoteNodePatch {
  const priority = flagInteger(invocation, 'priority', -MAX_PRIORITY, MAX_PRIORITY);
  const boundary = boundaryFlag(invocation);
  return { ...(priority !== null && { priority }), ...(boundary !== null && { boundary }) };
}

/** Registers a server, with a key from stdin where the flag asks for one; tries it once, and says how that went. */
export async function addServer(
  invocation: Invocation,
  { url, patch, group }: { readonly url: string | null; readonly patch: RemoteNodePatch; readonly group: string },
): Promise<number> {
  const { terminal } = invocation;
  const key = invocation.flags['key-stdin'] === undefined ? null : await readKey(terminal);
  const registry = await registryOf(invocation);
  const added = await refusedAsUsage(() => registry.add(url, patch));
  const node = key === null ? added : await registry.setKey(added.fingerprint, key);
  const probe = await probeHttpNode(node, registry.keyOf(node.fingerprint) ?? key);
  if (invocation.json) {
    terminal.json({ node, probe });
    return EXIT.ok;
  }
  const shared = node.shared ? ', shared with other nodes' : '';
  const facts = `priority ${node.priority}, boundary ${node.boundary}${shared}`;
  terminal.line(`Registered ${clean(node.name)} (${node.fingerprint}), ${facts}.`);
  for (const line of probeLines(node.name, probe)) terminal.line(line);
  if (!probe.ok) terminal.line(`It is kept: try again with meshnode ${group} test ${clean(node.name)}`);
  return EXIT.ok;
}

/** `GROUP remove NAME`. */
export function removeCommand(group: string): Command {
  return {
    name: `${group} remove`,
    positionals: 'NAME',
    maxPositionals: 1,
    summary: 'forget one, with its key',
    settings: REGISTRY_SETTINGS,
    extra: [],
    async run(invocation) {
      const name = required(invocation, 0, `meshnode ${group} remove NAME, as in meshnode ${group} list`);
      const node = await (await registryOf(invocation)).remove(name);
      const told = `${clean(node.name)} (${node.fingerprint}) is forgotten, and its key with it.`;
      return answer(invocation, { removed: node }, told);
    },
  };
}

/** `GROUP test NAME`. */
export function testCommand(group: string): Command {
  return {
    name: `${group} test`,
    positionals: 'NAME',
    maxPositionals: 1,
    summary: 'does it answer, and with which models?',
    settings: REGISTRY_SETTINGS,
    extra: [],
    async run(invocation) {
      const name = required(invocation, 0, `meshnode ${group} test NAME, as in meshnode ${group} list`);
      const registry = await registryOf(invocation);
      const node = registry.get(name);
      if (node === null) {
        const names = registry.list().map((each) => each.name);
        throw new CliError(`there is no node "${name}": ${names.join(', ') || 'none is registered'}`);
      }
      if (!isServer(node)) throw new CliError(`${node.name} is a peer: meshnode peers shows how it does`);
      if (node.hasKey) await registry.unlock();
      const probe = await probeHttpNode(node, registry.keyOf(node.fingerprint));
      answer(invocation, { node, probe }, ...probeLines(node.name, probe));
      return probe.ok ? EXIT.ok : EXIT.failure;
    },
  };
}

/** A server that speaks HTTP; no peer. */
export const isServer = ({ url, manifest }: RemoteNode): boolean => url !== null || manifest !== null;

/** Prints the nodes as JSON or as a table; `none` instead of an empty one. */
export function printNodes(
  invocation: Invocation,
  nodes: readonly RemoteNode[],
  { none, columns, row }: NodeTable,
): number {
  return answerList(invocation, { nodes }, { none, columns, rows: nodes.map((node) => row(node)) });
}

export interface NodeTable {
  readonly none: string;
  readonly columns: readonly string[];
  row(node: RemoteNode): readonly string[];
}

function probeLines(name: string, probe: Awaited<ReturnType<typeof probeHttpNode>>): readonly string[] {
  const shown = probe.models.slice(0, MODELS_SHOWN).map((id) => `  ${clean(id)}`);
  const more = probe.models.length - shown.length;
  const problem = probe.ok ? '' : 'problem: ';
  return [`${problem}${clean(name)}: ${clean(probe.detail)}`, ...shown, ...(more > 0 ? [`  and ${more} more`] : [])];
}

function boundaryFlag(invocation: Invocation): Boundary | null {
  const text = flagText(invocation, 'boundary');
  if (text === null) return null;
  const known = BOUNDARIES.find((boundary) => boundary === text && boundary !== 'local');
  if (known !== undefined) return known;
  throw new CliError(`--boundary is "${text}": expected mesh, private-cluster or public`, EXIT.usage);
}
