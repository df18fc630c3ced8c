/** The application proxy of the stand-in cluster: plain OpenAI behind each service's token, on a port of its own. */
import type { ServerResponse } from 'node:http';
import { type Asked, DONE, delta, json, OpenAiServer, type Reply, raw, reset, sse } from '../openai-server.ts';
import type { Service, Services } from './services.ts';

export interface AppFaults {
  /** Connections break at once. */
  down: boolean;
  /** Everything is answered with this status. */
  status: number | null;
  /** Streams break after so many chunks. */
  cutAfterChunks: number | null;
  /** Pause before each chunk of a stream, milliseconds. */
  chunkMs: number;
}

export interface AppProxyComponents {
  readonly services: Services;
  readonly nowMs: () => number;
}

export class AppProxy {
  readonly faults: AppFaults = { down: false, status: null, cutAfterChunks: null, chunkMs: 0 };
  /** Answers inference requests instead of the built-in words, by model id. */
  readonly replies = new Map<string, Reply>();
  readonly #components: AppProxyComponents;
  #server: OpenAiServer | null = null;

  constructor(components: AppProxyComponents) {
    this.#components = components;
  }

  async start(port = 0): Promise<void> {
    const server = await OpenAiServer.start(port);
    server.models = (response, asked) => this.#serve(response, asked);
    server.reply = (response, asked) => this.#serve(response, asked);
    this.#server = server;
  }

  async stop(): Promise<void> {
    await this.#server?.stop();
    this.#server = null;
  }

  /** What `service_endpoint` says. */
  endpointOf({ name }: Service): string {
    return `${this.#server?.url ?? 'http://127.0.0.1:9'}/app/${name}`;
  }

  /** Every request that arrived, of all services. */
  get asked(): readonly Asked[] {
    return this.#server?.asked ?? [];
  }

  async #serve(response: ServerResponse, asked: Asked): Promise<void> {
    await this.#reply(asked)(response, asked);
  }

  #reply({ method, path, headers, body }: Asked): Reply {
    const { services, nowMs } = this.#components;
    if (this.faults.down) return reset();
    if (this.faults.status !== null) return json(this.faults.status, { error: { message: 'the proxy has a bad day' } });
    const [, name, rest] = /^\/app\/([\w-]+)(\/v1\/[a-z/]+)/.exec(path) ?? [];
    const service = services.all.find((each) => each.name === name);
    if (service === undefined || rest === undefined) return json(404, { error: { message: 'no such application' } });
    const token = /^Bearer (.+)$/.exec(headers.authorization ?? '')?.[1] ?? '';
    if (!services.admits(service, token, nowMs())) return json(401, { error: { message: 'invalid or expired token' } });
    if (service.active === 0) return json(503, { error: { message: 'no active route' } }, { 'retry-after': '1' });
    if (method === 'GET' && rest === '/v1/models') {
      return json(200, { object: 'list', data: [{ id: service.model, object: 'model', owned_by: 'vllm' }] });
    }
    return this.replies.get(service.model) ?? this.#words(rest, service.model, body);
  }

  #words(path: string, model: string, body: string): Reply {
    const question = JSON.parse(body) as Question;
    if (question.model !== model)
      return json(404, { error: { message: `The model ${question.model} does not exist.` } });
    if (path === '/v1/embeddings') return json(200, embedding(model));
    if (path !== '/v1/chat/completions') return json(404, { error: { message: `no ${path} here` } });
    const asked = question.messages?.at(-1)?.content ?? '';
    const words = clusterAnswer(model, typeof asked === 'string' ? asked : '').split(/(?<= )/);
    return question.stream === true ? this.#streamed(words) : json(200, whole(model, words));
  }

  #streamed(words: readonly string[]): Reply {
    const { cutAfterChunks, chunkMs } = this.faults;
    const chunks = words.map((word) => delta(word));
    if (cutAfterChunks !== null && cutAfterChunks < chunks.length) return reset(chunks.slice(0, cutAfterChunks));
    const end = [delta(null, 'stop'), sse({ choices: [], usage: usageOf(words.length) }), DONE];
    if (chunkMs === 0) return raw([...chunks, ...end]);
    return async (response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      for (const piece of [...chunks, ...end]) {
        await new Promise((resolve) => setTimeout(resolve, chunkMs));
        if (this.faults.down) {
          response.socket?.resetAndDestroy();
          return;
        }
        response.write(piece);
      }
      response.end();
    };
  }
}

interface Question {
  readonly model: string;
  readonly stream?: boolean;
  readonly messages?: readonly { readonly content?: unknown }[];
}

/** What a service says to a question. */
export const clusterAnswer = (model: string, question: string): string => `${model} in the cluster heard: ${question}`;

const usageOf = (completion: number): object => {
  return { prompt_tokens: 7, completion_tokens: completion, total_tokens: 7 + completion };
};

function whole(model: string, words: readonly string[]): object {
  const choice = { index: 0, message: { role: 'assistant', content: words.join('') }, finish_reason: 'stop' };
  return { id: 'c', object: 'chat.completion', created: 1, model, choices: [choice], usage: usageOf(words.length) };
}

function embedding(model: string): object {
  const data = [{ object: 'embedding', index: 0, embedding: [0.6, 0.8] }];
  return { object: 'list', data, model, usage: { prompt_tokens: 2, total_tokens: 2 } };
}
