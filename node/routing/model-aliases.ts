/** Names that stand for models: each for a chain of them, tried in order. Pure. */
import { MeshError } from '../common/errors.ts';

/** As the config file has them, key `models.aliases`: a name, and what it stands for, the preferred first. */
export type AliasTable = Readonly<Record<string, readonly string[]>>;

/** One name with all that it stands for: models only, other names resolved. */
export interface ModelAlias {
  readonly name: string;
  readonly models: readonly string[];
}

/** Models of one chain: each may cost a client the wait for one failure. */
const MOST_MODELS = 8;

export class ModelAliases {
  readonly #chains: ReadonlyMap<string, readonly string[]>;

  /**
   * A name in its own list is the model of that name; any other name in a list is resolved.
   *
   * @throws MeshError `invalid_request` for a loop and for a chain of more than 8 models.
   */
  constructor(table: AliasTable = {}) {
    this.#chains = new Map(Object.keys(table).map((name) => [name, boundedChain(table, name)]));
  }

  /** The models to try, in order: the model itself when the name stands for no other. */
  chainOf(name: string): readonly string[] {
    return this.#chains.get(name) ?? [name];
  }

  list(): readonly ModelAlias[] {
    return [...this.#chains].map(([name, models]) => ({ name, models }));
  }
}

/** The table, which can be used. @throws MeshError as `ModelAliases`. */
export function checkedAliases(table: AliasTable): AliasTable {
  for (const name of Object.keys(table)) boundedChain(table, name);
  return table;
}

function boundedChain(table: AliasTable, name: string): readonly string[] {
  const models = [...new Set(resolved(table, name, []))];
  if (models.length <= MOST_MODELS) return models;
  throw refused(name, `stands for ${models.length} models: at most ${MOST_MODELS}`);
}

function resolved(table: AliasTable, name: string, path: readonly string[]): readonly string[] {
  if (path.includes(name)) throw refused(path[0] ?? name, `goes round in a circle: ${[...path, name].join(' > ')}`);
  const within = [...path, name];
  const elements = Object.hasOwn(table, name) ? (table[name] ?? []) : null;
  if (elements === null) return [name];
  return elements.flatMap((element) => (element === name ? [element] : resolved(table, element, within)));
}

const refused = (name: string, why: string): MeshError =>
  new MeshError('invalid_request', `models.aliases: ${name} ${why}`, { param: 'models.aliases' });
