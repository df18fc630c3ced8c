/** A small real server that speaks OpenAI's API and misbehaves on request. */
import { once } from 'node:events';
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { stopServer } from './http-server.ts';

/** One request that arrived whole. */
export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** Answers one request, in whichever way. */
export type Reply = (response: ServerResponse, asked: Asked) => void | Promise<void>;

export class OpenAiServer {
  /** How inference requests are answered. */
  reply: Reply = streamed(['Hello', ' there']);
  /** How `GET /v1/models` is answered. */
  models: Reply = json(200, { object: 'list', data: [{ id: 'm', object: 'model' }] });
  readonly asked: Asked[] = [];
  readonly #server: Server = createServer((request, response) => void this.#serve(request, response).catch(() => {}));
  #closed: (() => void)[] = [];

  static async start(port = 0, host = '127.0.0.1'): Promise<OpenAiServer> {
    const server = new OpenAiServer();
    server.#server.listen(port, host);
    await once(server.#server, 'listening');
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Inference requests so far. */
  get inferences(): readonly Asked[] {
    return this.asked.filter((asked) => asked.method === 'POST');
  }

  /** Resolves when a client closes a connection before its answer is whole. */
  nextClosed(): Promise<void> {
    return new Promise((resolve) => this.#closed.push(resolve));
  }

  async stop(): Promise<void> {
    await stopServer(this.#server);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => {});
    response.once('close', () => {
      if (!response.writableFinished) for (const resolve of this.#closed.splice(0)) resolve();
    });
    const { method = '', url = '', headers } = request;
    const asked = { method, path: url, headers, body: await text(request) };
    this.asked.push(asked);
    await (method === 'GET' ? this.models : this.reply)(response, asked);
  }
}

/** A chunk of a chat stream as servers send it. */
export function delta(content: string | null, finishReason: string | null = null, more: object = {}): string {
  const choice = { index: 0, delta: content === null ? {} : { content }, finish_reason: finishReason };
  return sse({ id: 'c', object: 'chat.completion.chunk', choices: [choice], ...more });
}

export const sse = (data: object): string => `data: ${JSON.stringify(data)}\n\n`;
export const DONE = 'data: [DONE]\n\n';

/** Sends the head of a stream and these pieces, then leaves the connection open. */
export function opened(pieces: readonly string[]): Reply {
  return (response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.flushHeaders();
    for (const piece of pieces) response.write(piece);
  };
}

/** As `opened`, and ends. */
export function raw(pieces: readonly string[]): Reply {
  return async (response, asked) => {
    await opened(pieces)(response, asked);
    response.end();
  };
}

/** A whole stream of these texts with its usage. */
export function streamed(texts: readonly string[]): Reply {
  const usage = { prompt_tokens: 7, completion_tokens: texts.length, prompt_tokens_details: { cached_tokens: 3 } };
  const last = [delta(null, 'stop'), sse({ choices: [], usage }), DONE];
  return raw([': hello\n\n', ...texts.map((text) => delta(text)), ...last]);
}

export function json(status: number, body: unknown, headers: Readonly<Record<string, string>> = {}): Reply {
  return (response) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers });
    response.end(typeof body === 'string' ? body : JSON.stringify(body));
  };
}

/** OpenAI's error body. */
export function refusal(status: number, error: object, headers: Readonly<Record<string, string>> = {}): Reply {
  return json(status, { error }, headers);
}

/** Breaks the connection, after these pieces of a stream when there are any. */
export function reset(pieces: readonly string[] = []): Reply {
  return async (response, asked) => {
    if (pieces.length > 0) {
      await opened(pieces.slice(0, -1))(response, asked);
      await new Promise<void>((resolve) => response.write(pieces.at(-1), () => resolve()));
    }
    response.socket?.resetAndDestroy();
  };
}

/** Takes the request and says nothing. */
export const silent: Reply = () => {};
