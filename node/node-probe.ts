/** One look at an HTTP node, as its owner registers or tests it: does it answer, and with which models? */
import { probeServer } from './backends/openai-http/model-list.ts';
import { systemClock } from './common/clock.ts';
import { type MeshError, toMeshError } from './common/errors.ts';

/** What was found, in one line for people. */
export interface NodeProbe {
  readonly ok: boolean;
  readonly detail: string;
  /** Ids. */
  readonly models: readonly string[];
}

const TIMEOUT_MS = 5_000;

/** Asks the server as the running node does, once and for 5 s at most. Never throws; the key goes into the header only. */
export async function probeHttpNode(name: string, url: string, key: string | null): Promise<NodeProbe> {
  try {
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    const { models } = await probeServer({ clock: systemClock }, { name, url, key, signal });
    const detail = `it answers with ${models.length} model${models.length === 1 ? '' : 's'}`;
    return { ok: true, detail, models: models.map(({ id }) => id) };
  } catch (thrown) {
    const error = toMeshError(thrown);
    return { ok: false, detail: `${error.message}${advice(error, key)}`, models: [] };
  }
}

/** What its owner can do about it. */
function advice({ code, message }: MeshError, key: string | null): string {
  if (code === 'unauthorized' && key === null) return ': give it a key with --key-stdin';
  if (message.includes('ECONNREFUSED')) return ': nothing listens there';
  return message.includes('ENOTFOUND') ? ': its name cannot be resolved' : '';
}
