/** Compiled grammars by their text: clients ask for the same few again and again. */
import { MeshError } from '../../../common/errors.ts';

const MOST_GRAMMARS = 32;

export class GrammarCache<G> {
  readonly #compile: (source: string) => Promise<G>;
  /** Least recently used first. */
  readonly #grammars = new Map<string, G>();

  constructor(compile: (source: string) => Promise<G>) {
    this.#compile = compile;
  }

  /** @throws MeshError `invalid_request` when it does not compile. */
  async get(source: string): Promise<G> {
    const grammar = this.#grammars.get(source) ?? (await this.#compiled(source));
    this.#grammars.delete(source);
    this.#grammars.set(source, grammar);
    const [oldest] = this.#grammars.keys();
    if (oldest !== undefined && this.#grammars.size > MOST_GRAMMARS) this.#grammars.delete(oldest);
    return grammar;
  }

  async #compiled(source: string): Promise<G> {
    try {
      return await this.#compile(source);
    } catch (thrown) {
      throw new MeshError('invalid_request', 'The engine cannot enforce this format: its grammar does not compile.', {
        param: 'response_format',
        cause: thrown,
      });
    }
  }
}
