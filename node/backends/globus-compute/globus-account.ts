/** One service account at Globus Compute: its token, its share of requests, its tasks. */
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import type { Clock } from '../../common/clock.ts';
import { MeshError, toMeshError } from '../../common/errors.ts';
import { parseJson } from '../openai-http/parse-json.ts';
import { withoutSecret } from '../openai-http/upstream-errors.ts';
import { AccountToken, type IssuedToken } from './account-token.ts';
import { type GlobusReply, GlobusServer, readReply } from './globus-server.ts';
import { JSON_SERIALIZER } from './packing.ts';
import { RequestBudget } from './request-budget.ts';
import { TaskPoller } from './task-poller.ts';
import { readReports, type TaskReport } from './task-report.ts';
import { type GlobusTask, TaskSubmitter } from './task-submitter.ts';

/** The id and the secret of a service account. Never log it. */
export interface GlobusCredentials {
  readonly id: string;
  readonly secret: string;
}

/** Where Globus is. Base URLs without trailing slash. */
export interface GlobusHosts {
  readonly authUrl: string;
  readonly computeUrl: string;
}

export const GLOBUS_HOSTS: GlobusHosts = {
  authUrl: 'https://auth.globus.org',
  computeUrl: 'https://compute.api.globus.org',
};

/**
 * Other places of the services, by the variables that Globus's own SDK reads. Plain HTTP counts on loopback only, where
 * nobody listens in.
 *
 * @throws MeshError `invalid_request` that names the variable.
 */
export function globusHosts(env: Readonly<Record<string, string | undefined>>): GlobusHosts {
  const place = (name: string, usual: string): string => {
    const text = env[name];
    if (text === undefined || text === '') return usual;
    const url = URL.parse(text);
    const isLocal = url !== null && /^(127\.0\.0\.1|localhost|\[::1\])$/.test(url.hostname);
    if (url !== null && (url.protocol === 'https:' || (url.protocol === 'http:' && isLocal))) return url.origin;
    throw new MeshError('invalid_request', `${name} is no https URL`);
  };
  return {
    authUrl: place('GLOBUS_SDK_SERVICE_URL_AUTH', GLOBUS_HOSTS.authUrl),
    computeUrl: place('GLOBUS_SDK_SERVICE_URL_COMPUTE', GLOBUS_HOSTS.computeUrl),
  };
}

/** How an endpoint does. `managers`: blocks of nodes that take work, null where it does not say. */
export interface GlobusEndpointStatus {
  readonly isOnline: boolean;
  readonly managers: number | null;
}

/** How much later than a submit each may be sent, ms. */
const PATIENCE = { submit: 0, poll: 1000, status: 15_000 } as const;
const BUSY_MS = 5000;
const MOST_BUSY_MS = 60_000;
type Json = Readonly<Record<string, unknown>>;

export class GlobusAccount {
  readonly #auth: GlobusServer;
  readonly #compute: GlobusServer;
  readonly #credentials: GlobusCredentials;
  readonly #token: AccountToken;
  readonly #budget: RequestBudget;
  readonly #submitter: TaskSubmitter;
  readonly #poller: TaskPoller;

  constructor(
    { clock, credentials }: { readonly clock: Clock; readonly credentials: GlobusCredentials },
    { authUrl, computeUrl }: GlobusHosts = GLOBUS_HOSTS,
  ) {
    this.#credentials = credentials;
    this.#auth = new GlobusServer({ clock }, { name: 'Globus Auth', url: authUrl });
    this.#compute = new GlobusServer({ clock }, { name: 'Globus Compute', url: computeUrl });
    this.#budget = new RequestBudget({ clock });
    this.#token = new AccountToken({ clock, request: (signal) => this.#requestToken(signal) });
    this.#submitter = new TaskSubmitter({
      turn: (signal) => this.#turn(signal),
      send: (tasks, signal) => this.#send(tasks, signal),
    });
    this.#poller = new TaskPoller({ clock, ask: (taskIds, signal) => this.#report(taskIds, signal) });
  }

  /** Does Globus take the credentials? @throws MeshError that says why not. */
  async verify(signal: AbortSignal): Promise<void> {
    await this.#token.get(signal);
  }

  /** The id of the task. A task that is with the service cannot be taken back. @throws MeshError. */
  submit(task: GlobusTask, signal: AbortSignal): Promise<string> {
    return this.#submitter.submit(task, signal);
  }

  /** Resolves when the task ended, whatever the network does meanwhile. @throws MeshError. */
  result(taskId: string, signal: AbortSignal): Promise<TaskReport> {
    return this.#poller.wait(taskId, signal);
  }

  /** @throws MeshError. */
  async status(endpointUuid: string, signal: AbortSignal): Promise<GlobusEndpointStatus> {
    const { requestStatus } = await import('./globus-sdk.ts');
    const json = await this.#authorized(PATIENCE.status, signal, async (token) =>
      asReply(await requestStatus(endpointUuid, token, this.#compute.fetch(signal))),
    );
    const details = isRecord(json['details']) ? json['details'] : {};
    const { managers } = details;
    const isCount = typeof managers === 'number' && Number.isInteger(managers);
    return { isOnline: json['status'] === 'online', managers: isCount ? managers : null };
  }

  /** Fails whoever waits; what was submitted goes on there. */
  close(): void {
    this.#submitter.close();
    this.#poller.close();
    this.#auth.close();
    this.#compute.close();
  }

  async #requestToken(signal: AbortSignal): Promise<IssuedToken> {
    const { requestToken } = await import('./globus-sdk.ts');
    try {
      const reply = await asReply(await requestToken(this.#credentials, this.#auth.fetch(signal)));
      if (isRefusal(reply)) throw new MeshError('unauthorized', REFUSED_ACCOUNT);
      const { access_token: accessToken, expires_in: expiresIn } = readReply(reply, this.#auth.name);
      if (typeof accessToken === 'string' && accessToken !== '' && typeof expiresIn === 'number' && expiresIn > 0) {
        return { accessToken, expiresInMs: expiresIn * 1000 };
      }
      throw new MeshError('upstream_error', 'Globus Auth answered without a token');
    } catch (error) {
      throw withoutSecret(toMeshError(error, 'upstream_error'), this.#credentials.secret);
    }
  }

  /** The token first, so that a turn is used when it comes. */
  async #turn(signal: AbortSignal): Promise<void> {
    await this.#token.get(signal);
    await this.#budget.take(PATIENCE.submit, signal);
  }

  #send(tasks: readonly GlobusTask[], signal: AbortSignal): Promise<Json> {
    const byFunction: Record<string, string[]> = {};
    for (const { functionUuid, packed } of tasks) {
      byFunction[functionUuid] = [...(byFunction[functionUuid] ?? []), packed];
    }
    const body = { create_queue: false, result_serializers: [JSON_SERIALIZER], tasks: byFunction };
    const ask = {
      method: 'POST',
      path: `/v3/endpoints/${tasks[0]?.endpointUuid}/submit`,
      body: asBytes(body),
    } as const;
    // The submitter has taken its turn.
    return this.#authorized(null, signal, (token) =>
      this.#compute.askOnce({ ...ask, headers: jsonHeaders(token) }, signal),
    );
  }

  async #report(taskIds: readonly string[], signal: AbortSignal): Promise<readonly TaskReport[]> {
    const ask = { method: 'POST', path: '/v2/batch_status', body: asBytes({ task_ids: taskIds }) } as const;
    const json = await this.#authorized(PATIENCE.poll, signal, (token) =>
      this.#compute.ask({ ...ask, headers: jsonHeaders(token) }, signal),
    );
    return readReports(json);
  }

  /** `patienceMs` null: the turn was taken. A token that is refused is replaced once. */
  async #authorized(
    patienceMs: number | null,
    signal: AbortSignal,
    send: (token: string) => Promise<GlobusReply>,
  ): Promise<Json> {
    for (let isAgain = false; ; isAgain = true) {
      const token = await this.#token.get(signal);
      if (patienceMs !== null || isAgain) await this.#budget.take(patienceMs ?? PATIENCE.submit, signal);
      const reply = await send(token);
      if (reply.status === 401 && !isAgain) {
        this.#token.invalidate(token);
        continue;
      }
      try {
        return readReply(reply, this.#compute.name);
      } catch (thrown) {
        const error = withoutSecret(toMeshError(thrown, 'upstream_error'), token);
        if (error.code === 'rate_limited') {
          this.#budget.pause(Math.min(error.facts.retryAfterMs ?? BUSY_MS, MOST_BUSY_MS));
        }
        throw error;
      }
    }
  }
}

const REFUSED_ACCOUNT =
  'Globus Auth does not know this service account, or its secret is wrong: set it with meshnode fixtures credentials --key-stdin';

const asBytes = (json: unknown): Uint8Array => Buffer.from(JSON.stringify(json));

function jsonHeaders(token: string): Record<string, string> {
  return { 'content-type': 'application/json', accept: 'application/json', authorization: `Bearer ${token}` };
}

/** A wrong secret is a 401, a wrong id a 400 that says `invalid_client`. */
function isRefusal({ status, body }: GlobusReply): boolean {
  const json = parseJson(body);
  return status === 401 || (status === 400 && isRecord(json) && json['error'] === 'invalid_client');
}

async function asReply(response: Response): Promise<GlobusReply> {
  return { status: response.status, headers: Object.fromEntries(response.headers), body: await response.text() };
}
