/**
 * A provider that misbehaves in sixteen ways, one for each model: real HTTP, byte for byte. The whole answer is always the
 * same 60 tokens. It counts what it is asked, and what of it it completed.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { stopServer } from './http-server.ts';

export const TOKENS = 60;
const WORDS: readonly string[] = Array.from({ length: TOKENS }, (_, index) => `w${String(index).padStart(2, '0')} `);
/** The answer that every model gives when nothing goes wrong. */
export const WHOLE_ANSWER = WORDS.join('');
/** As the server counts; a client can tell counts that came from guesses. */
export const PROMPT_TOKENS = 17;

/** The answer of the model `large`: pieces, and characters of each. 100 MB in all. */
export const LARGE_PIECES = 1600;
export const LARGE_PIECE = 65_536;

/** One inference request as it came. */
export interface Call {
  readonly model: string;
  /** Milliseconds of `performance.now()`. */
  readonly atMs: number;
  readonly stream: boolean;
  /** Does it end with the beginning of an answer? */
  readonly isPrefilled: boolean;
  readonly body: string;
  /** The whole answer, and its end, were written. */
  completed: boolean;
}

export interface MisbehavingServerOptions {
  /** All waits of the server are divided by this. Default 1. */
  readonly speedUp?: number;
  /** Does it show that it goes on with an assistant's message at the end, as llama-server does? Default false. */
  readonly tellsPrefill?: boolean;
}

interface Ask {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly body: Body;
  readonly call: Call;
  /** How many requests for this model came before. */
  readonly before: number;
}

interface Body {
  readonly model: string;
  readonly stream?: boolean;
  readonly stream_options?: { readonly include_usage?: boolean };
  readonly messages?: readonly { readonly role: string; readonly content: string }[];
}

type Fault = (ask: Ask) => void | Promise<void>;

export class MisbehavingServer {
  readonly calls: Call[] = [];
  /** Paths of the questions for what it is. */
  readonly looks: string[] = [];
  /** Of the model `large`. */
  writtenBytes = 0;
  readonly #speedUp: number;
  readonly #tellsPrefill: boolean;
  readonly #server: Server = createServer(
    (request, response) => void this.#serve(request, response).catch(() => response.destroy()),
  );
  #brokenUntilMs = 0;

  constructor({ speedUp = 1, tellsPrefill = false }: MisbehavingServerOptions = {}) {
    this.#speedUp = speedUp;
    this.#tellsPrefill = tellsPrefill;
  }

  async start(): Promise<this> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    this.#brokenUntilMs = performance.now() + this.#ms(60_000);
    return this;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** When `s15` recovers, milliseconds of `performance.now()`. */
  get recoversAtMs(): number {
    return this.#brokenUntilMs;
  }

  callsOf(model: string): readonly Call[] {
    return this.calls.filter((call) => call.model === model);
  }

  async stop(): Promise<void> {
    await stopServer(this.#server);
  }

  #ms(milliseconds: number): number {
    return milliseconds / this.#speedUp;
  }

  /** What each model does. */
  readonly #faults: Readonly<Record<string, Fault>> = {
    ok: (ask) => this.#whole(ask),
    large: (ask) => this.#large(ask),
    'no-prefill': (ask) =>
      ask.call.isPrefilled
        ? refuse(ask, 400, { message: 'assistant message prefill is not supported', code: 'prefill_refused' })
        : this.#whole(ask),
    s01: (ask) =>
      ask.before === 0
        ? refuse(ask, 429, { message: 'slow down', code: 'rate_limit_exceeded' }, { 'retry-after': '2' })
        : this.#whole(ask),
    s02: (ask) => refuse(ask, 429, { message: 'slow down', code: 'rate_limit_exceeded' }),
    s03: (ask) => (ask.before === 0 ? refuse(ask, 500, { message: 'oops' }) : this.#whole(ask)),
    s04: (ask) => refuse(ask, 503, { message: 'overloaded' }),
    s05: (ask) => (ask.before === 0 ? void ask.request.socket.resetAndDestroy() : this.#whole(ask)),
    s06: async (ask) => {
      await this.#wait(ask, 120_000);
      ask.response.destroy();
    },
    s07: async (ask) => {
      open(ask);
      ask.response.flushHeaders();
      await this.#wait(ask, 20_000);
      await this.#words(ask, 0, TOKENS);
      this.#end(ask);
    },
    s08: (ask) => this.#diesAfter(ask, 40),
    s09: async (ask) => {
      await this.#words(ask, 0, 20);
      await this.#wait(ask, 30_000);
      ask.response.destroy();
    },
    s10: async (ask) => {
      await this.#words(ask, 0, 9);
      ask.response.write('data: {"id":"x","choices":[{"index":0,"delta":{"content":"w09\n\n');
      await this.#words(ask, 10, TOKENS);
      this.#end(ask);
    },
    s11: async (ask) => {
      await this.#words(ask, 0, TOKENS);
      // Nor does it close the connection.
      this.#finish(ask);
    },
    s12: (ask) =>
      refuse(ask, 400, { message: 'maximum context length is 4096 tokens', code: 'context_length_exceeded' }),
    s13: (ask) =>
      refuse(ask, 400, {
        message: 'rejected by the content policy',
        type: 'invalid_request_error',
        code: 'content_policy_violation',
      }),
    s14: (ask) => this.#diesAfter(ask, 40),
    s15: (ask) =>
      performance.now() < this.#brokenUntilMs ? refuse(ask, 503, { message: 'overloaded' }) : this.#whole(ask),
    s16: (ask) => refuse(ask, 503, { message: 'overloaded' }),
  };

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => {});
    request.on('error', () => {});
    const pieces: Buffer[] = [];
    for await (const piece of request) pieces.push(piece as Buffer);
    if (request.method === 'GET') {
      this.looks.push(request.url ?? '');
      this.#tell(request.url ?? '', response);
      return;
    }
    const raw = Buffer.concat(pieces).toString('utf8');
    const body = JSON.parse(raw) as Body;
    const { model, stream = false } = body;
    const isPrefilled = body.messages?.at(-1)?.role === 'assistant';
    const before = this.callsOf(model).length;
    const call = { model, atMs: performance.now(), stream, isPrefilled, body: raw, completed: false };
    this.calls.push(call);
    await this.#faults[model]?.({ request, response, body, call, before });
  }

  #tell(path: string, response: ServerResponse): void {
    const data = Object.keys(this.#faults).map((id) => ({ id, object: 'model', owned_by: 'me' }));
    const isProps = path === '/props' && this.#tellsPrefill;
    const said = isProps
      ? { default_generation_settings: {} }
      : path === '/v1/models'
        ? { object: 'list', data }
        : null;
    response.writeHead(said === null ? 404 : 200, { 'content-type': 'application/json' });
    response.end(JSON.stringify(said ?? {}));
  }

  /** All that is left of the answer after what the request begins it with. */
  async #whole(ask: Ask): Promise<void> {
    const from = begunTokens(ask);
    if (!ask.call.stream) {
      const message = { role: 'assistant', content: WORDS.slice(from).join('') };
      const choices = [{ index: 0, message, finish_reason: 'stop' }];
      ask.response.writeHead(200, { 'content-type': 'application/json' });
      ask.response.end(JSON.stringify({ object: 'chat.completion', choices, usage: usageOf(from) }));
      ask.call.completed = true;
      return;
    }
    await this.#words(ask, from, TOKENS);
    this.#end(ask, from);
  }

  /** As fast as it is read. */
  async #large(ask: Ask): Promise<void> {
    open(ask);
    const piece = event({ choices: [{ index: 0, delta: { content: '#'.repeat(LARGE_PIECE) }, finish_reason: null }] });
    for (let i = 0; i < LARGE_PIECES && !ask.response.closed; i += 1) {
      this.writtenBytes += piece.length;
      if (!ask.response.write(piece)) await once(ask.response, 'drain', { signal: AbortSignal.timeout(60_000) });
    }
    this.#end(ask);
  }

  /** After two thirds of what is left when it was given the beginning. */
  async #diesAfter(ask: Ask, count: number): Promise<void> {
    const from = begunTokens(ask);
    await this.#words(ask, from, from === 0 ? count : from + Math.floor(((TOKENS - from) * 2) / 3));
    ask.request.socket.resetAndDestroy();
  }

  async #words(ask: Ask, from: number, to: number): Promise<void> {
    open(ask);
    for (const content of WORDS.slice(from, to)) {
      ask.response.write(event({ choices: [{ index: 0, delta: { content }, finish_reason: null }] }));
      await this.#wait(ask, 5);
    }
  }

  #finish(ask: Ask, from = 0): void {
    ask.response.write(event({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] }));
    if (ask.body.stream_options?.include_usage === true)
      ask.response.write(event({ choices: [], usage: usageOf(from) }));
    ask.call.completed = true;
  }

  #end(ask: Ask, from = 0): void {
    this.#finish(ask, from);
    ask.response.end('data: [DONE]\n\n');
  }

  /** Until the time is over or the connection is. */
  async #wait({ response }: Ask, milliseconds: number): Promise<void> {
    if (response.closed) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        response.off('close', done);
        resolve();
      };
      const timer = setTimeout(done, this.#ms(milliseconds));
      response.once('close', done);
    });
  }
}

/** Tokens of the answer that the request gives. @throws when they are others than this answer's. */
function begunTokens({ call, body }: Ask): number {
  const begun = call.isPrefilled ? (body.messages?.at(-1)?.content ?? '') : '';
  if (!WHOLE_ANSWER.startsWith(begun)) throw new Error('not the beginning of this answer');
  return begun === '' ? 0 : begun.trimEnd().split(' ').length;
}

function open({ response }: Ask): void {
  if (!response.headersSent) response.writeHead(200, { 'content-type': 'text/event-stream' });
}

function refuse(
  { response }: Ask,
  status: number,
  error: object,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify({ error }));
}

const event = (data: object): string =>
  `data: ${JSON.stringify({ id: 'x', object: 'chat.completion.chunk', ...data })}\n\n`;

/** `from`: tokens that it was given. */
const usageOf = (from: number): object => ({
  prompt_tokens: PROMPT_TOKENS + from,
  completion_tokens: TOKENS - from,
  total_tokens: PROMPT_TOKENS + TOKENS,
});
