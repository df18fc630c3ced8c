/** `meshnode models [load|unload|pin|unpin ID]`: what can be used by its name, where it is, and what is in memory here. */
import type { ModelResidency } from '../../node/index.ts';
import { CliError, type Command, EXIT, group } from '../command.ts';
import { formatBytes, formatCount, mergeModels } from '../format.ts';
import { connect, type NodeApi } from '../node-api.ts';
import { table } from '../terminal.ts';

/** How often a load is looked at, and how long it is followed. */
const LOOK_EVERY_MS = 250;
const LOAD_BOUND_MS = 15 * 60_000;

/** `GET /api/v1/residency`. */
interface ResidencyAnswer {
  readonly budgetBytes: number;
  readonly models: readonly ModelResidency[];
}

const common = { maxPositionals: 1, settings: ['data-dir', 'api-key-file'], extra: [] };

const list: Command = {
  ...common,
  name: 'models list',
  positionals: '',
  maxPositionals: 0,
  summary: 'every model of the mesh and where it is',
  async run(invocation) {
    const { terminal } = invocation;
    const api = await connect(invocation);
    const [node, peers, residency] = await Promise.all([api.node(), api.peers(), residencyOf(api)]);
    const listed = mergeModels(node, peers);
    if (invocation.json) {
      terminal.json({ models: listed, residency });
      return EXIT.ok;
    }
    if (listed.length === 0) {
      terminal.line('No models yet: put a GGUF file into the models directory, or start with --model PATH.');
      return EXIT.ok;
    }
    const own = new Map(residency.models.map((each) => [each.model, each]));
    const rows = listed.flatMap((model) =>
      model.holders.map(({ node: name, local, entry }) => {
        const here = local ? own.get(model.id) : undefined;
        return [
          model.id,
          local ? `${name} (here)` : name,
          stateLine(entry.state, here),
          formatCount(entry.contextLength),
          entry.quantization ?? '-',
          formatBytes(entry.sizeBytes),
          here === undefined ? '-' : formatBytes(here.need.totalBytes),
          entry.tokensPerSecond === null ? '-' : entry.tokensPerSecond.toFixed(1),
        ];
      }),
    );
    const head = ['MODEL', 'ON', 'STATE', 'CONTEXT', 'QUANT', 'SIZE', 'MEMORY', 'TOK/S'];
    for (const line of table(head, rows)) terminal.line(line);
    for (const { model, problem } of residency.models) if (problem !== null) terminal.line(`${model}: ${problem}`);
    return EXIT.ok;
  },
};

/** Nodes with an engine of another kind cannot tell. */
async function residencyOf(api: NodeApi): Promise<ResidencyAnswer> {
  return await api.read<ResidencyAnswer>('/api/v1/residency').catch(() => ({ budgetBytes: 0, models: [] }));
}

function stateLine(state: string, here: ModelResidency | undefined): string {
  if (here?.problem != null) return 'failed';
  return here?.pinned === true ? `${state}, pinned` : state;
}

function verb(
  name: 'load' | 'unload' | 'pin' | 'unpin',
  summary: string,
  said: (model: string) => string,
  isDone: ((model: ModelResidency) => boolean) | null = null,
): Command {
  return {
    ...common,
    name: `models ${name}`,
    positionals: 'ID',
    summary,
    async run(invocation) {
      const [model] = invocation.positionals;
      if (model === undefined) throw new CliError(`which model? meshnode models ${name} ID`, EXIT.usage);
      const api = await connect(invocation);
      await api.tell(`/api/v1/residency/${name}`, { model });
      const now = isDone === null ? await lookAt(api, model) : await followed(api, model, isDone);
      if (invocation.json) invocation.terminal.json(now);
      else invocation.terminal.line(said(model));
      return EXIT.ok;
    },
  };
}

async function lookAt(api: NodeApi, model: string): Promise<ModelResidency> {
  const { models } = await api.read<ResidencyAnswer>('/api/v1/residency');
  const found = models.find((each) => each.model === model);
  if (found === undefined) throw new CliError(`there is no model "${model}" on this node any more`);
  return found;
}

async function followed(
  api: NodeApi,
  model: string,
  isDone: (model: ModelResidency) => boolean,
): Promise<ModelResidency> {
  const until = performance.now() + LOAD_BOUND_MS;
  while (performance.now() < until) {
    const now = await lookAt(api, model);
    if (isDone(now)) return now;
    if (now.problem !== null) throw new CliError(now.problem);
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
  throw new CliError('it goes on in the background: see meshnode models');
}

const isResident = ({ state }: ModelResidency): boolean => state === 'resident';

export const models: Command = group('models', 'every model of the mesh, and which are in memory here', [
  list,
  verb('load', 'load a model into memory here', (model) => `${model} is loaded.`, isResident),
  verb(
    'unload',
    'give its memory back when it has nothing to do',
    (model) => `${model} is unloaded.`,
    ({ state }) => state === 'on-disk',
  ),
  verb('pin', 'load it and keep it until the node stops', (model) => `${model} is loaded and stays.`, isResident),
  verb('unpin', 'let it be unloaded again', (model) => `${model} may be unloaded when nobody uses it.`),
]);
