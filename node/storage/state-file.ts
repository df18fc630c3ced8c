/** What a node keeps from one run to the next beside its identity. */
import { dataDirPaths } from './data-dir.ts';
import { readJsonFile, writePrivateFile } from './private-file.ts';

export interface NodeState {
  /** TCP port that peers remember us by, tried first at the next start; null before the first run. */
  readonly listenPort: number | null;
}

/** `<dataDir>/state.json`. A damaged file counts as absent. */
export class StateFile {
  readonly #path: string;

  constructor(dataDir: string) {
    this.#path = dataDirPaths(dataDir).state;
  }

  async read(): Promise<NodeState> {
    const json = await readJsonFile(this.#path, 64 * 1024);
    const port = typeof json === 'object' && json !== null && 'listenPort' in json ? json.listenPort : null;
    const valid = typeof port === 'number' && Number.isInteger(port) && port > 0 && port < 65_536;
    return { listenPort: valid ? port : null };
  }

  async write(state: NodeState): Promise<void> {
    await writePrivateFile(this.#path, `${JSON.stringify(state)}\n`);
  }
}
