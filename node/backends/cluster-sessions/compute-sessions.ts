/** Compute sessions of a cluster: made, awaited, listed, read, given code and destroyed. */
import { randomUUID } from 'node:crypto';
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import { type Clock, deadline, sleep } from '../../common/clock.ts';
import { MeshError } from '../../common/errors.ts';
import { given, listOf, type ManagedCluster, objectOf, textOf, unreadable } from './manager-caller.ts';
import type { ResourceDemand } from './resource-demand.ts';

/** In the order in which a session passes through them; the last three are ends. */
export const SESSION_STATUSES = [
  'PENDING',
  'SCHEDULED',
  'PREPARING',
  'PULLING',
  'PREPARED',
  'CREATING',
  'RUNNING',
  'RESTARTING',
  'TERMINATING',
  'TERMINATED',
  'CANCELLED',
  'ERROR',
] as const;

const ENDED: readonly string[] = ['TERMINATED', 'CANCELLED', 'ERROR'];

export interface ComputeSession {
  readonly id: string;
  readonly name: string;
  readonly image: string;
  /** One of `SESSION_STATUSES`, or what a newer manager calls it. */
  readonly status: string;
  /** ISO 8601; empty where the manager does not say. */
  readonly createdAt: string;
}

export interface SessionTemplate extends ResourceDemand {
  /** 4 to 64 letters, digits, `-` and `_`. */
  readonly name: string;
  /** vFolders by name. */
  readonly mounts: readonly string[];
  /** A batch session runs this and ends; null: it stays and takes code. */
  readonly command: string | null;
}

/** A piece of what code says, or, at last, how it ended. `exitCode`: null where the kernel has none. */
export type ExecutionEvent =
  | { readonly type: 'output'; readonly stream: 'stdout' | 'stderr'; readonly text: string }
  | { readonly type: 'end'; readonly exitCode: number | null };

const CREATE_MS = 30_000;
const EXECUTE_MS = 60_000;
const DESTROY_MS = 15_000;
const FIRST_LOOK_MS = 500;
const SLOWEST_LOOK_MS = 5000;
const LIST_PAGE = 100;
const MAX_LISTED = 1000;
const LIST_QUERY = `query($limit: Int!, $offset: Int!, $status: String) {
  compute_session_list(limit: $limit, offset: $offset, status: $status) {
    items { session_id name image status created_at } total_count } }`;

export const hasEnded = (session: Pick<ComputeSession, 'status'>): boolean => ENDED.includes(session.status);

export class ComputeSessions {
  readonly #components: ManagedCluster & { readonly clock: Clock };

  constructor(components: ManagedCluster & { readonly clock: Clock }) {
    this.#components = components;
  }

  /** Asks for a session and does not wait for it. @throws MeshError `invalid_request` (name, image, quota), as the manager says. */
  async create(template: SessionTemplate, signal: AbortSignal): Promise<ComputeSession> {
    if (!/^[\w-]{4,64}$/.test(template.name)) {
      throw new MeshError('invalid_request', 'A session name has 4 to 64 letters, digits, - and _', { param: 'name' });
    }
    const { manager, cluster } = this.#components;
    const prefix = await manager.sessionPrefix(signal);
    const path = prefix === '/kernel' ? '/kernel/create' : prefix;
    const body = creation(template);
    const answer = await manager.call<unknown>({ method: 'POST', path, body, timeoutMs: CREATE_MS }, signal);
    return this.#read(objectOf(answer, cluster), template.name);
  }

  /** @throws MeshError `not_found`. */
  async get(name: string, signal: AbortSignal): Promise<ComputeSession> {
    const { manager, cluster } = this.#components;
    const answer = await manager.call<unknown>({ method: 'GET', path: await this.#path(name, signal) }, signal);
    return this.#read(objectOf(answer, cluster), name);
  }

  /** Newest last as the manager orders them, at most 1,000. `all`: those that have ended as well. */
  async list({ all }: { readonly all: boolean }, signal: AbortSignal): Promise<readonly ComputeSession[]> {
    const { manager, cluster } = this.#components;
    const status = SESSION_STATUSES.filter((each) => all || !ENDED.includes(each)).join(',');
    const found: ComputeSession[] = [];
    while (found.length < MAX_LISTED) {
      const variables = { limit: LIST_PAGE, offset: found.length, status };
      const body = { query: LIST_QUERY, variables };
      const answer = await manager.call<unknown>({ method: 'POST', path: '/admin/graphql', body }, signal);
      const page = listOf(pageOf(answer, cluster)['items'], cluster);
      found.push(...page.map((item) => this.#read(item, textOf(item, 'name'))));
      if (page.length < LIST_PAGE) break;
    }
    return found.slice(0, MAX_LISTED);
  }

  /**
   * Looks until the session has reached `target` or an end; tells each new status.
   *
   * @throws MeshError `request_timeout` after `boundMs`: the session goes on. What `get` throws.
   */
  async waitUntil(
    name: string,
    wait: {
      readonly target: 'RUNNING' | 'TERMINATED';
      readonly boundMs: number;
      readonly onStatus: (session: ComputeSession) => void;
    },
    signal: AbortSignal,
  ): Promise<ComputeSession> {
    const { clock } = this.#components;
    let shown = '';
    const late = (): Error =>
      new MeshError(
        'request_timeout',
        `${name} is still ${shown} after ${Math.round(wait.boundMs / 1000)} s; it goes on`,
      );
    using bound = deadline(clock, wait.boundMs, late, signal);
    for (let lookMs = FIRST_LOOK_MS; ; lookMs = Math.min(SLOWEST_LOOK_MS, lookMs * 1.5)) {
      const session = await this.get(name, bound.signal);
      if (session.status !== shown) wait.onStatus(session);
      shown = session.status;
      if (shown === wait.target || hasEnded(session)) return session;
      await sleep(clock, lookMs, bound.signal);
    }
  }

  /** Everything that its main container wrote. */
  async logs(name: string, signal: AbortSignal): Promise<string> {
    const { manager, cluster } = this.#components;
    const path = `${await this.#path(name, signal)}/logs`;
    const answer = objectOf(
      await manager.call<unknown>({ method: 'GET', path, timeoutMs: EXECUTE_MS }, signal),
      cluster,
    );
    const result = isRecord(answer['result']) ? answer['result'] : answer;
    return textOf(result, 'logs');
  }

  /**
   * Runs code in the session's kernel. Leaving early leaves the code running there.
   *
   * @throws MeshError `invalid_request` when the code reads from standard input, which nobody answers.
   */
  async *execute(name: string, code: string, signal: AbortSignal): AsyncGenerator<ExecutionEvent> {
    const { manager, cluster } = this.#components;
    const path = await this.#path(name, signal);
    const runId = randomUUID().replaceAll('-', '').slice(0, 16);
    let step = { mode: 'query', code };
    for (;;) {
      const body = { ...step, runId, options: {} };
      const answer = objectOf(
        await manager.call<unknown>({ method: 'POST', path, body, timeoutMs: EXECUTE_MS }, signal),
        cluster,
      );
      const result = objectOf(answer['result'], cluster);
      yield* outputOf(result);
      const status = textOf(result, 'status');
      if (status === 'finished') {
        const exitCode = result['exitCode'];
        yield { type: 'end', exitCode: typeof exitCode === 'number' ? exitCode : null };
        return;
      }
      if (status === 'waiting-input') {
        throw new MeshError(
          'invalid_request',
          `The code asks for input, which ${name} cannot be given: put it into the code`,
        );
      }
      if (status === 'exec-timeout')
        throw new MeshError('request_timeout', `${cluster} ended the code: it ran too long`);
      step = { mode: 'continue', code: '' };
    }
  }

  /** `forced`: without waiting for it to end well, for sessions that hang. @throws MeshError `not_found`. */
  async destroy(name: string, { forced }: { readonly forced: boolean }, signal: AbortSignal): Promise<void> {
    const path = `${await this.#path(name, signal)}${forced ? '?forced=true' : ''}`;
    await this.#components.manager.call<unknown>({ method: 'DELETE', path, timeoutMs: DESTROY_MS }, signal);
  }

  async #path(name: string, signal: AbortSignal): Promise<string> {
    return `${await this.#components.manager.sessionPrefix(signal)}/${encodeURIComponent(name)}`;
  }

  /** Managers of different ages call the same things differently. */
  #read(fields: Readonly<Record<string, unknown>>, name: string): ComputeSession {
    const first = (...names: readonly string[]): string =>
      names.map((each) => textOf(fields, each)).find(Boolean) ?? '';
    const status = first('status');
    if (status === '') throw unreadable(this.#components.cluster, 'a session without status');
    const id = first('sessionId', 'session_id', 'kernelId');
    return {
      id,
      name: first('sessionName', 'name') || name,
      image: first('image'),
      status,
      createdAt: first('createdAt', 'created_at', 'created'),
    };
  }
}

function creation(template: SessionTemplate): object {
  const { name, image, mounts, command, resources, environ, group, domain, scalingGroup, shmem } = template;
  const config = given({ mounts, mount_map: {}, environ, resources, resource_opts: given({ shmem }), scalingGroup });
  const type = command === null ? { type: 'interactive' } : { type: 'batch', startupCommand: command };
  const cluster = { clusterSize: 1, clusterMode: 'single-node' };
  return {
    name,
    image,
    ...type,
    enqueueOnly: true,
    maxWaitSeconds: 0,
    reuseIfExists: false,
    ...cluster,
    domain,
    group,
    config,
  };
}

function pageOf(answer: unknown, cluster: string): Readonly<Record<string, unknown>> {
  const said = objectOf(answer, cluster);
  const data = isRecord(said['data']) ? said['data'] : said;
  return objectOf(data['compute_session_list'], cluster);
}

/** Pictures and other media have no place in a terminal. */
function* outputOf(result: Readonly<Record<string, unknown>>): Generator<ExecutionEvent> {
  for (const entry of Array.isArray(result['console']) ? (result['console'] as unknown[]) : []) {
    if (!Array.isArray(entry)) continue;
    const [stream, text] = entry as unknown[];
    if ((stream === 'stdout' || stream === 'stderr') && typeof text === 'string')
      yield { type: 'output', stream, text };
  }
}
