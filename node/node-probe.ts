/** One look at an HTTP node, as its owner registers or tests it: does it answer, and with which models? */
import { type HttpTarget, keyFor, targetsOf } from './backends/openai-http/http-target.ts';
import { readManifest } from './backends/openai-http/manifest-source.ts';
import { askNamed, probeServer } from './backends/openai-http/model-list.ts';
import { systemClock } from './common/clock.ts';
import { type MeshError, toMeshError } from './common/errors.ts';
import { locateManifest } from './config-upstreams.ts';
import type { RemoteNode } from './storage/remote-node.ts';
import { parseManifest } from './storage/status-manifest.ts';

/** What was found, in one line for people. */
export interface NodeProbe {
  readonly ok: boolean;
  readonly detail: string;
  /** Ids. */
  readonly models: readonly string[];
}

const TIMEOUT_MS = 5_000;
/** Servers of a manifest that are asked. */
const MOST_ASKED = 16;

/**
 * Asks the server, or the live ones of its manifest, as the running node does, once and for 5 s at most. Never throws; a
 * key goes into headers only, and no URL of a manifest into the answer.
 */
export async function probeHttpNode(node: RemoteNode, key: string | null): Promise<NodeProbe> {
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  try {
    if (node.manifest !== null) return await probeManifest(node, node.manifest, { key, signal });
    const [target] = targetsOf(node, null).targets;
    if (target === undefined) return { ok: false, detail: 'it is a peer', models: [] };
    return await probeTarget(target, { key, signal });
  } catch (thrown) {
    return { ok: false, detail: toMeshError(thrown).message, models: [] };
  }
}

/** A manifest as its owner types it, a path against `resolve`. @throws MeshError `invalid_request`. */
export const manifestPlace = locateManifest;

interface ProbeOptions {
  readonly key: string | null;
  readonly signal: AbortSignal;
}

async function probeTarget(target: HttpTarget, { key, signal }: ProbeOptions): Promise<NodeProbe> {
  const { name, url, publicOnly, models: named } = target;
  const own = keyFor(target, key);
  try {
    const options = { name, url, key: own, signal, publicOnly, ...(named !== null && { ask: askNamed(named) }) };
    const { models } = await probeServer({ clock: systemClock }, options);
    return {
      ok: true,
      detail: `it answers with ${counted(models.length, 'model')}`,
      models: models.map(({ id }) => id),
    };
  } catch (thrown) {
    const error = toMeshError(thrown);
    return { ok: false, detail: `${error.message}${advice(error, own)}`, models: [] };
  }
}

async function probeManifest(node: RemoteNode, manifest: string, { key, signal }: ProbeOptions): Promise<NodeProbe> {
  const text = await readManifest({ clock: systemClock }, { manifest, signal });
  const state = { current: parseManifest(text), problem: null };
  const { targets, idle } = targetsOf(node, state);
  const asked = targets.slice(0, MOST_ASKED);
  const probes = await Promise.all(asked.map((target) => probeTarget(target, { key, signal })));
  const models = [...new Set(probes.flatMap((probe) => probe.models))];
  const failures = probes.flatMap((probe, at) => (probe.ok ? [] : [`${asked[at]?.name}: ${probe.detail}`]));
  const quiet = idle.map(({ name, problem }) => `${name}: ${problem}`);
  const isUnused = key !== null && !key.startsWith('{') && node.url === null;
  const hint = isUnused ? ['the keys of a manifest are a JSON object by endpoint_id; one key alone goes nowhere'] : [];
  const found = `its manifest names ${counted(targets.length, 'live server')} with ${counted(models.length, 'model')}`;
  return { ok: probes.some(({ ok }) => ok), detail: [found, ...failures, ...quiet, ...hint].join('; '), models };
}

const counted = (count: number, what: string): string => `${count} ${what}${count === 1 ? '' : 's'}`;

/** What its owner can do about it. */
function advice({ code, message }: MeshError, key: string | null): string {
  if (code === 'unauthorized' && key === null) return ': give it a key with --key-stdin';
  if (message.includes('ECONNREFUSED')) return ': nothing listens there';
  return message.includes('ENOTFOUND') ? ': its name cannot be resolved' : '';
}
