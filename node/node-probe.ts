/** One look at an HTTP node, as its owner registers or tests it: does it answer, and with which models? */
import { probeServer } from './backends/openai-http/model-list.ts';
import { systemClock } from './common/clock.ts';
import { toMeshError } from './common/errors.ts';

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
    const advice = error.code === 'unauthorized' && key === null ? ': give it a key with --key-stdin' : '';
    return { ok: false, detail: `${error.message}${advice}`, models: [] };
  }
}
