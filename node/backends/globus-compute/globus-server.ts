/** One of Globus's two services over HTTP: answers read whole, within bounds. */
import type { IncomingHttpHeaders } from 'node:http';
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import type { Clock } from '../../common/clock.ts';
import { MeshError } from '../../common/errors.ts';
import { type HttpAsk, HttpClient, type HttpLimits } from '../openai-http/http-client.ts';
import { parseJson } from '../openai-http/parse-json.ts';
import { readText } from '../openai-http/read-text.ts';
import { errorOfRefusal } from '../openai-http/upstream-errors.ts';

export interface GlobusReply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

const LIMITS: HttpLimits = { connectMs: 5000, headersMs: 30_000, silenceMs: 30_000 };
/** The service itself takes no larger results. */
const MAX_REPLY_BYTES = 32 * 1024 * 1024;

export class GlobusServer {
  readonly name: string;
  readonly #client: HttpClient;
  /** Keeps no connection: a client sends a request again that was lost with a kept one. */
  readonly #once: HttpClient;

  /** `url`: base URL without trailing slash. */
  constructor({ clock }: { readonly clock: Clock }, options: { readonly name: string; readonly url: string }) {
    this.name = options.name;
    this.#client = new HttpClient({ clock }, options);
    this.#once = new HttpClient({ clock }, options);
  }

  /** @throws MeshError `peer_unreachable`, `upstream_error` (no HTTP, too long), or the signal's. */
  ask(ask: HttpAsk, signal: AbortSignal): Promise<GlobusReply> {
    return this.#exchange(this.#client, ask, signal);
  }

  /** As `ask`, for what must not be done twice. */
  async askOnce(ask: HttpAsk, signal: AbortSignal): Promise<GlobusReply> {
    this.#once.closeIdle();
    return await this.#exchange(this.#once, ask, signal);
  }

  /**
   * A `fetch` for the SDK: its requests go to this server, whatever host it thinks of, with the bounds and the address
   * checks of `ask`.
   */
  fetch(signal: AbortSignal): typeof fetch {
    return async (input, init = {}) => {
      const { pathname, search } = new URL(input instanceof Request ? input.url : input);
      const body = init.body === undefined || init.body === null ? null : Buffer.from(String(init.body));
      const headers = Object.fromEntries(new Headers(init.headers));
      const method = init.method === 'POST' ? 'POST' : 'GET';
      const ask = { method, path: `${pathname}${search}`, headers, ...(body !== null && { body }) } as const;
      const reply = await this.ask(ask, signal);
      return new Response(reply.body, { status: reply.status, headers: sentHeaders(reply.headers) });
    };
  }

  close(): void {
    this.#client.destroy();
    this.#once.destroy();
  }

  async #exchange(client: HttpClient, ask: HttpAsk, signal: AbortSignal): Promise<GlobusReply> {
    const answer = await client.call(ask, LIMITS, signal);
    try {
      const { status, headers } = answer;
      return { status, headers, body: await readText(answer.body, MAX_REPLY_BYTES, this.name) };
    } finally {
      answer.close();
    }
  }
}

/**
 * The answer's JSON object.
 *
 * @throws MeshError for any status outside 2xx, by what it means, and `upstream_error` for what is no JSON object.
 */
export function readReply({ status, headers, body }: GlobusReply, name: string): Readonly<Record<string, unknown>> {
  if (status < 200 || status > 299) throw refusal({ status, headers, body }, name);
  const json = parseJson(body);
  if (!isRecord(json)) throw new MeshError('upstream_error', `${name} answered with something that is no JSON object`);
  return json;
}

/** Globus says `reason`, which explains more than `detail`. */
function refusal({ status, headers, body }: GlobusReply, name: string): MeshError {
  const json = parseJson(body);
  const reason = isRecord(json) && typeof json['reason'] === 'string' ? { error: { message: json['reason'] } } : null;
  return errorOfRefusal({
    ...{ name, status, headers, nowMs: Date.now() },
    body: reason === null ? body : JSON.stringify(reason),
  });
}

function sentHeaders(headers: IncomingHttpHeaders): Headers {
  const sent = new Headers();
  for (const name of ['content-type', 'retry-after'] as const) {
    const value = headers[name];
    if (value !== undefined) sent.set(name, value);
  }
  return sent;
}
