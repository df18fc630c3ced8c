/** `meshnode nodes add | list | remove | test`: servers that speak HTTP, registered by hand. */
import { BOUNDARIES, type Boundary, openRegistry, probeHttpNode } from '../../node/index.ts';
import { CliError, type Command, configOf, EXIT, group, type Invocation, refusedAsUsage } from '../command.ts';
import { flagInteger, flagText, required } from '../flag-values.ts';
import { secretsAccess } from '../passphrase-input.ts';
import { readKey } from '../secret-input.ts';
import { clean, table } from '../terminal.ts';

const MAX_PRIORITY = 1_000;
const MODELS_SHOWN = 10;
const settings = ['data-dir', 'passphrase-file'];

const registryOf = (invocation: Invocation) => openRegistry(configOf(invocation).config, secretsAccess(invocation));

const list: Command = {
  name: 'nodes list',
  positionals: '',
  maxPositionals: 0,
  summary: 'what was registered or set by hand',
  settings,
  extra: [],
  async run(invocation) {
    const { terminal } = invocation;
    const nodes = (await registryOf(invocation)).list();
    if (invocation.json) {
      terminal.json({ nodes });
      return EXIT.ok;
    }
    if (nodes.length === 0) {
      terminal.line('None yet: meshnode nodes add http://HOST:PORT registers an OpenAI-compatible server.');
      return EXIT.ok;
    }
    const rows = nodes.map((node) => [
      node.name,
      node.url ?? 'peer',
      String(node.priority),
      node.boundary,
      node.hasKey ? 'yes' : 'no',
      node.fingerprint,
    ]);
    for (const line of table(['NAME', 'URL', 'PRIORITY', 'BOUNDARY', 'KEY', 'FINGERPRINT'], rows)) terminal.line(line);
    return EXIT.ok;
  },
};

const add: Command = {
  name: 'nodes add',
  positionals: 'URL',
  maxPositionals: 1,
  summary: 'register an OpenAI-compatible server and try it',
  settings,
  extra: [
    { flag: 'name', argument: 'N', help: 'what people call it (its host)' },
    { flag: 'priority', argument: 'N', help: '-1000 to 1000, higher is preferred (0)' },
    { flag: 'boundary', argument: 'B', help: 'mesh, private-cluster or public (by address)' },
    { flag: 'key-stdin', argument: '', help: 'its API key is the first line of stdin' },
  ],
  async run(invocation) {
    const { terminal } = invocation;
    const url = required(invocation, 0, 'meshnode nodes add URL, for example http://192.168.1.20:8000');
    const name = flagText(invocation, 'name');
    const priority = flagInteger(invocation, 'priority', -MAX_PRIORITY, MAX_PRIORITY);
    const boundary = boundaryFlag(invocation);
    const key = invocation.flags['key-stdin'] === undefined ? null : await readKey(terminal);
    const registry = await registryOf(invocation);
    const patch = {
      ...(name !== null && { name }),
      ...(priority !== null && { priority }),
      ...(boundary !== null && { boundary }),
    };
    const node = await refusedAsUsage(() => registry.add(url, patch));
    if (key !== null) await registry.setKey(node.fingerprint, key);
    const probe = await probeHttpNode(node.name, node.url ?? url, key);
    if (invocation.json) {
      terminal.json({ node: { ...node, hasKey: key !== null }, probe });
      return EXIT.ok;
    }
    terminal.line(
      `Registered ${clean(node.name)} (${node.fingerprint}), priority ${node.priority}, boundary ${node.boundary}.`,
    );
    for (const line of probeLines(node.name, probe)) terminal.line(line);
    if (!probe.ok) terminal.line(`It is kept: try again with meshnode nodes test ${clean(node.name)}`);
    return EXIT.ok;
  },
};

const remove: Command = {
  name: 'nodes remove',
  positionals: 'NAME',
  maxPositionals: 1,
  summary: 'forget one, with its key',
  settings,
  extra: [],
  async run(invocation) {
    const { terminal } = invocation;
    const name = required(invocation, 0, 'meshnode nodes remove NAME, as in meshnode nodes list');
    const node = await (await registryOf(invocation)).remove(name);
    if (invocation.json) terminal.json({ removed: node });
    else terminal.line(`${clean(node.name)} (${node.fingerprint}) is forgotten, and its key with it.`);
    return EXIT.ok;
  },
};

const test: Command = {
  name: 'nodes test',
  positionals: 'NAME',
  maxPositionals: 1,
  summary: 'does it answer, and with which models?',
  settings,
  extra: [],
  async run(invocation) {
    const { terminal } = invocation;
    const name = required(invocation, 0, 'meshnode nodes test NAME, as in meshnode nodes list');
    const registry = await registryOf(invocation);
    const node = registry.get(name);
    if (node === null) {
      const names = registry.list().map((each) => each.name);
      throw new CliError(`there is no node "${name}": ${names.join(', ') || 'none is registered'}`);
    }
    if (node.url === null) throw new CliError(`${node.name} is a peer: meshnode peers shows how it does`);
    if (node.hasKey) await registry.unlock();
    const probe = await probeHttpNode(node.name, node.url, registry.keyOf(node.fingerprint));
    if (invocation.json) terminal.json({ node, probe });
    else for (const line of probeLines(node.name, probe)) terminal.line(line);
    return probe.ok ? EXIT.ok : EXIT.failure;
  },
};

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

export const nodes: Command = group('nodes', 'register servers that speak HTTP', [list, add, remove, test]);
