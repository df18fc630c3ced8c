/** `GET models` and `GET models/{id}`: every model that this node can answer with, from memory only. */
import type { FastifyInstance } from 'fastify';
import type { CatalogEntry, ModelState } from '../../../protocols/catalog/catalog.ts';
import { MeshError } from '../../common/errors.ts';
import type { ModelAlias } from '../../routing/model-aliases.ts';
import type { FacadeComponents } from '../components.ts';
import { usableRemoteModels } from '../remote-models.ts';

type ModelViews = Pick<FacadeComponents, 'localModels' | 'remoteModels' | 'aliases' | 'loadBalancing' | 'node'>;

/** One line of the list: OpenAI's four fields, and ours under one name. */
export interface ListedModel {
  readonly id: string;
  readonly object: 'model';
  /** Unix seconds. */
  readonly created: number;
  readonly owned_by: 'llama.cpp' | 'remote';
  readonly meshnode: {
    /** Fingerprints of the nodes that have it, this one first. */
    readonly nodes: readonly string[];
    /** The readiest state among them. */
    readonly state: ModelState;
    /** Tokens; the largest among them. */
    readonly context_length: number;
    readonly quantization: string | null;
    readonly size_bytes: number;
    /** Of a name that stands for models: those, the preferred first. Its facts are those of the first that is there. */
    readonly alias_of?: readonly string[];
  };
  /** The same facts where clients of llama.cpp's server look for them; `n_ctx`: null where unknown. */
  readonly meta: { readonly n_ctx: number | null; readonly size: number; readonly quantization: string | null };
}

const READINESS: readonly ModelState[] = ['resident', 'loading', 'on-disk'];

/** Adds both routes under `prefix`, for example `/v1`. */
export function addModelRoutes(app: FastifyInstance, prefix: string, views: ModelViews): void {
  app.get(`${prefix}/models`, async () => ({ object: 'list', data: listModels(views) }));
  // Ids may contain slashes, so the rest of the path is the id.
  app.get<{ Params: { '*': string } }>(`${prefix}/models/*`, async (request) => {
    const id = request.params['*'];
    const found = listModels(views).find((model) => model.id === id);
    if (found !== undefined) return found;
    throw new MeshError('not_found', `There is no model "${id.slice(0, 200)}" here or on any peer.`, {
      param: 'model',
    });
  });
}

/** Local models first, then remote ones, then aliases of any of them; an id that is here as well is listed once, as local. */
export function listModels(views: ModelViews): ListedModel[] {
  const { fingerprint, epoch } = views.node();
  const holders = new Map<string, { local: boolean; nodes: string[]; entries: CatalogEntry[] }>();
  const add = (node: string, entry: CatalogEntry, local: boolean): void => {
    const known = holders.get(entry.id);
    if (known === undefined) holders.set(entry.id, { local, nodes: [node], entries: [entry] });
    else {
      if (!known.nodes.includes(node)) known.nodes.push(node);
      known.entries.push(entry);
    }
  };
  for (const entry of views.localModels()) add(fingerprint, entry, true);
  for (const remote of usableRemoteModels(views)) add(remote.fingerprint, remote.entry, false);
  const created = Math.floor(epoch / 1000);
  const models = [...holders].map(([id, { local, nodes, entries }]): ListedModel => {
    const facts = summary(entries);
    const { context_length: tokens, size_bytes: size, quantization } = facts;
    return {
      id,
      object: 'model',
      created,
      owned_by: local ? 'llama.cpp' : 'remote',
      meshnode: { nodes, ...facts },
      meta: { n_ctx: tokens > 0 ? tokens : null, size, quantization },
    };
  });
  return withAliases(models, views.aliases?.() ?? []);
}

/** A name takes the place of the model of that name; one that stands for nothing that is there is left out. */
function withAliases(models: readonly ListedModel[], aliases: readonly ModelAlias[]): ListedModel[] {
  const listed = new Map(models.map((model) => [model.id, model]));
  for (const { name, models: chain } of aliases) {
    const first = chain.map((id) => models.find((model) => model.id === id)).find((model) => model !== undefined);
    if (first === undefined) listed.delete(name);
    else listed.set(name, { ...first, id: name, meshnode: { ...first.meshnode, alias_of: chain } });
  }
  return [...listed.values()];
}

function summary(entries: readonly CatalogEntry[]): Omit<ListedModel['meshnode'], 'nodes'> {
  const states = new Set(entries.map((entry) => entry.state));
  return {
    state: READINESS.find((state) => states.has(state)) ?? 'on-disk',
    context_length: Math.max(...entries.map((entry) => entry.contextLength)),
    quantization: entries[0]?.quantization ?? null,
    size_bytes: entries[0]?.sizeBytes ?? 0,
  };
}
