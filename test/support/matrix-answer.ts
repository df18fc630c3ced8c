/** One request of the matrix, asked at one place, whole or streamed, and its answer in one form for both. */
import assert from 'node:assert/strict';
import { eventData } from './event-stream.ts';
import { assertShape } from './openai-shapes.ts';

/** Where a body is posted, by the name of its kind. */
export const ROUTES = {
  chat: '/v1/chat/completions',
  completion: '/v1/completions',
  embedding: '/v1/embeddings',
  rerank: '/v1/rerank',
  tokenize: '/v1/tokenize',
  detokenize: '/v1/detokenize',
} as const;
export type Route = keyof typeof ROUTES;

/** The routes whose answers can be streamed. */
export const STREAMED: ReadonlySet<Route> = new Set(['chat', 'completion']);

export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
}

interface ChatLogprob {
  readonly token: string;
  readonly logprob: number;
}

interface Logprobs {
  /** Of a chat. */
  readonly content?: (ChatLogprob & { readonly top_logprobs: readonly ChatLogprob[] })[];
  /** Of a completion. */
  readonly tokens?: string[];
  readonly token_logprobs?: (number | null)[];
  readonly top_logprobs?: (Record<string, number> | null)[];
  readonly text_offset?: number[];
}

export interface Choice {
  text: string;
  reasoning: string;
  readonly calls: { id: string; name: string; arguments: string }[];
  /** Finish reasons; a whole answer has exactly one. */
  readonly finishes: string[];
  logprobs: Record<string, unknown[]>;
}

export interface Refusal {
  readonly message: string;
  readonly type: string;
  readonly param: string | null;
  readonly code: string;
}

/** The body of an answer that is no generation: the fields that are looked at; each route has its own of them. */
export interface ResultBody {
  readonly data: readonly { readonly index: number; readonly embedding: number[] | string }[];
  readonly results: readonly {
    readonly index: number;
    readonly relevance_score: number;
    readonly document?: { readonly text: string };
  }[];
  readonly count: number;
  readonly tokens: readonly number[];
  readonly token_strs?: readonly string[];
  readonly prompt: string;
  readonly usage?: Usage;
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  /** Null when there is an answer. */
  readonly error: Refusal | null;
  readonly choices: readonly Choice[];
  readonly usage: Usage | null;
  readonly timings: Readonly<Record<string, number>> | null;
  /** The whole body, or every event of the stream. */
  readonly events: readonly Event[];
  readonly result: ResultBody;
}

/** A whole answer or a chunk, of a chat or a completion. */
interface Event {
  readonly model: string;
  readonly choices: readonly {
    readonly index: number;
    readonly text?: string;
    readonly delta?: Part;
    readonly message?: Part;
    readonly logprobs: Logprobs | null;
    readonly finish_reason: string | null;
  }[];
  readonly usage?: Usage | null;
  readonly timings?: Readonly<Record<string, number>>;
}

interface Part {
  readonly content?: string | null;
  readonly reasoning_content?: string;
  readonly tool_calls?: readonly {
    readonly index?: number;
    readonly id?: string;
    readonly function: { readonly name?: string; readonly arguments: string };
  }[];
}

/** Posts the body and checks the answer's shape. */
export async function ask(url: string, route: Route, body: object): Promise<Answer> {
  const response = await fetch(url + ROUTES[route], {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(60_000),
  });
  const text = await response.text();
  const none = { error: null, choices: [], usage: null, timings: null, events: [], result: JSON.parse('{}') };
  const answer: Answer = { status: response.status, headers: response.headers, ...none };
  if (response.status !== 200) {
    const parsed = JSON.parse(text) as { error: Refusal };
    assertShape('error', parsed);
    return { ...answer, error: parsed.error };
  }
  if (!STREAMED.has(route)) {
    const result = JSON.parse(text) as ResultBody;
    if (route === 'embedding') assertShape('embeddings', result);
    return { ...answer, result, usage: result.usage ?? null };
  }
  const isStream = response.headers.get('content-type')?.startsWith('text/event-stream') === true;
  const kind = route === 'chat' ? 'chat' : 'completion';
  const events = isStream ? chunksOf(text, `${kind}Chunk`) : [JSON.parse(text) as Event];
  if (!isStream) assertShape(kind, events[0]);
  const usage = events.map((event) => event.usage ?? null).findLast((found) => found !== null) ?? null;
  const timings = events.findLast((event) => event.timings !== undefined)?.timings ?? null;
  return { ...answer, events, choices: choicesOf(events), usage, timings };
}

function chunksOf(text: string, shape: 'chatChunk' | 'completionChunk'): Event[] {
  const data = eventData(text);
  assert.equal(data.pop(), '[DONE]', 'the stream is whole');
  return data.map((line) => {
    const event = JSON.parse(line) as Event;
    assertShape(shape, event);
    return event;
  });
}

function choicesOf(events: readonly Event[]): Choice[] {
  const choices: Choice[] = [];
  for (const event of events) {
    for (const { index, text, delta, message, logprobs, finish_reason } of event.choices) {
      const choice = choices[index] ?? { text: '', reasoning: '', calls: [], finishes: [], logprobs: {} };
      choices[index] = choice;
      const part = delta ?? message ?? {};
      choice.text += text ?? part.content ?? '';
      choice.reasoning += part.reasoning_content ?? '';
      part.tool_calls?.forEach((call, position) => {
        const at = call.index ?? position;
        const known = choice.calls[at] ?? { id: '', name: '', arguments: '' };
        choice.calls[at] = known;
        known.id += call.id ?? '';
        known.name += call.function.name ?? '';
        known.arguments += call.function.arguments;
      });
      if (finish_reason !== null) choice.finishes.push(finish_reason);
      for (const [key, list] of Object.entries(logprobs ?? {})) {
        if (Array.isArray(list)) choice.logprobs[key] = [...(choice.logprobs[key] ?? []), ...list];
      }
    }
  }
  return choices;
}
