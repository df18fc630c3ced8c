/** How the other commands find the node that runs here: a note in the data dir, believed only when the node confirms it. */
import { rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dataDirPaths } from './data-dir.ts';
import { readJsonFile, writePrivateFile } from './private-file.ts';

const CONFIRM_TIMEOUT_MS = 2_000;

/** A node that is up. */
export interface RunningNode {
  readonly pid: number;
  /** Base URL of its facade. */
  readonly api: string;
  readonly fingerprint: string;
  /** Unix milliseconds. */
  readonly startedAt: number;
}

/** `<dataDir>/run.json`: written when the node is ready, removed when it stops. */
export class RuntimeFile {
  readonly #path: string;

  constructor(dataDir: string) {
    this.#path = dataDirPaths(dataDir).run;
  }

  async write(node: RunningNode): Promise<void> {
    await writePrivateFile(this.#path, `${JSON.stringify({ ...node, host: hostname() })}\n`);
  }

  async remove(): Promise<void> {
    await rm(this.#path, { force: true });
  }
}

/** How to ask the node; `apiKey` for one that demands it. */
export interface FindOptions {
  readonly apiKey?: string | null;
  readonly signal?: AbortSignal;
}

/**
 * The node that runs with this data dir, or null. A note left by a killed process counts for nothing: the process must
 * live and its facade must answer with the same fingerprint.
 */
export async function findRunningNode(dataDir: string, options: FindOptions = {}): Promise<RunningNode | null> {
  const note = await readJsonFile(dataDirPaths(dataDir).run, 64 * 1024);
  if (!isNote(note) || note.host !== hostname() || !isAlive(note.pid)) return null;
  const { pid, api, fingerprint, startedAt } = note;
  return (await confirms(note, options)) ? { pid, api, fingerprint, startedAt } : null;
}

async function confirms(node: RunningNode, options: FindOptions): Promise<boolean> {
  const timeout = AbortSignal.timeout(CONFIRM_TIMEOUT_MS);
  try {
    const response = await fetch(`${node.api}/api/v1/node`, {
      signal: options.signal === undefined ? timeout : AbortSignal.any([options.signal, timeout]),
      headers: options.apiKey ? { authorization: `Bearer ${options.apiKey}` } : {},
      redirect: 'error',
    });
    // Without the key we cannot see who it is, but something guards that port: the next call says what it wants.
    if (response.status === 401) {
      await response.body?.cancel();
      return true;
    }
    const body: unknown = await response.json();
    return typeof body === 'object' && body !== null && 'fingerprint' in body && body.fingerprint === node.fingerprint;
  } catch {
    return false;
  }
}

function isNote(value: unknown): value is RunningNode & { host: string } {
  if (typeof value !== 'object' || value === null) return false;
  const { pid, api, fingerprint, startedAt, host } = value as Record<string, unknown>;
  return (
    typeof pid === 'number' &&
    Number.isInteger(pid) &&
    pid > 0 &&
    typeof api === 'string' &&
    /^https?:\/\//.test(api) &&
    typeof fingerprint === 'string' &&
    typeof startedAt === 'number' &&
    typeof host === 'string'
  );
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // EPERM: it lives, but belongs to someone else.
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
