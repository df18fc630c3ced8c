/** What all commands about the work on a cluster have in common: reaching it, and the flags that say what is wanted. */
import { type ClusterWork, durationMs, openClusterWork } from '../../node/index.ts';
import { CliError, configOf, EXIT, type ExtraFlag, type Invocation, refusedAsUsage } from '../command.ts';
import { flagText, required } from '../flag-values.ts';
import { secretsAccess } from '../passphrase-input.ts';
import { clean } from '../terminal.ts';

export const CLUSTER_SETTINGS = ['data-dir', 'passphrase-file'];

/** Of sessions and services alike. */
export const DEMAND_FLAGS: readonly ExtraFlag[] = [
  { flag: 'image', argument: 'I', help: 'container image, as the cluster calls it' },
  { flag: 'resource', argument: 'SLOT=N', help: 'such as cpu=4, mem=32g, cuda.shares=1; repeatable' },
  { flag: 'env', argument: 'K=V', help: 'an environment variable there; repeatable' },
  { flag: 'project', argument: 'P', help: 'the project that it counts for (default)' },
  { flag: 'domain', argument: 'D', help: 'the domain (default)' },
  { flag: 'scaling-group', argument: 'G', help: 'the group of machines to run on' },
  { flag: 'shmem', argument: 'SIZE', help: 'shared memory, for example 2g' },
];

/** Runs `work` on the cluster that the first word names, and lets go of it. */
export async function onCluster<T>(
  invocation: Invocation,
  usage: string,
  work: (cluster: ClusterWork, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const name = required(invocation, 0, usage);
  const cluster = await openClusterWork(configOf(invocation).config, secretsAccess(invocation), name);
  // The node's timers keep no process alive; a command that waits must.
  const alive = setInterval(() => {}, 60_000);
  try {
    // Ctrl-C ends the process; every call has a bound of its own.
    return await refusedAsUsage(() => work(cluster, new AbortController().signal));
  } catch (error) {
    throw withAdvice(error, cluster.record.name, usage);
  } finally {
    clearInterval(alive);
    cluster.close();
  }
}

/** What its user can do about a refusal that came from the cluster. */
function withAdvice(error: unknown, name: string, usage: string): unknown {
  if (!(error instanceof Error) || !('facts' in error)) return error;
  const { httpStatus } = error.facts as { readonly httpStatus?: number };
  const kind = /^meshnode cluster (session|service)/.exec(usage)?.[1] ?? 'service';
  if (httpStatus === 404) return new CliError(`${error.message}: see meshnode cluster ${kind} list ${clean(name)}`);
  if (httpStatus !== 412) return error;
  return new CliError(`${error.message}: end a session or park a service first, or ask for less with --resource`);
}

/** The flags of `DEMAND_FLAGS` without the image; what was not given is absent. */
export function demandOf(invocation: Invocation) {
  const group = flagText(invocation, 'project');
  const domain = flagText(invocation, 'domain');
  const scalingGroup = flagText(invocation, 'scaling-group');
  const shmem = flagText(invocation, 'shmem');
  return {
    resources: pairs(invocation, 'resource', 'cpu=4'),
    environ: pairs(invocation, 'env', 'HF_HOME=/models'),
    ...(group !== null && { group }),
    ...(domain !== null && { domain }),
    ...(scalingGroup !== null && { scalingGroup }),
    ...(shmem !== null && { shmem }),
  };
}

/** @throws CliError (usage) that says which image is meant. */
export function imageOf(invocation: Invocation): string {
  const image = flagText(invocation, 'image');
  if (image !== null) return image;
  throw new CliError('which image? --image I, for example cr.backend.ai/stable/python:3.11-ubuntu22.04', EXIT.usage);
}

/** `30s`, `10m`, `forever`; null when it was not given. */
export function flagDuration(invocation: Invocation, name: string): number | null {
  const text = flagText(invocation, name);
  if (text === null) return null;
  const ms = durationMs(text);
  if (ms !== null) return ms;
  throw new CliError(`--${name} is "${text}": expected a time such as 30s, 10m or 2h`, EXIT.usage);
}

function pairs({ flags }: Invocation, name: string, example: string): Record<string, string> {
  const entries = (flags[name] ?? []).map((text) => {
    const at = text.indexOf('=');
    if (at < 1) throw new CliError(`--${name} is "${text}": expected KEY=VALUE, for example ${example}`, EXIT.usage);
    return [text.slice(0, at), text.slice(at + 1)] as const;
  });
  return Object.fromEntries(entries);
}
