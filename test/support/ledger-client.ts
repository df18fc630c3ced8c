/** Asks one question of a node over HTTP, as a client does, and writes down everything that comes back. */
import http from 'node:http';
import OpenAI, { APIError } from 'openai';
import type { Question, Receipt } from './ledger.ts';

const PATIENCE_MS = 60_000;

export interface AskOptions {
  /** Base URL of the facade. */
  readonly api: string;
  readonly signal: AbortSignal;
  /** After each chunk with text: how many there were, and who gives the answer. */
  readonly onText?: (count: number, node: string | null) => void;
}

type Draft = { -readonly [K in keyof Receipt]: Receipt[K] } & { textAtMs: number[] };

const now = (): number => performance.timeOrigin + performance.now();

/** Never rejects: whatever goes wrong is in the receipt. */
export async function askForReceipt(question: Question, { api, signal, onText }: AskOptions): Promise<Receipt> {
  const draft: Draft = {
    ...{ id: question.id, status: null, text: '', finish: null, done: false, completionTokens: null, error: null },
    ...{
      broken: null,
      timedOut: false,
      left: false,
      requestId: null,
      node: null,
      attempts: null,
      resumed: 0,
      nodes: [],
    },
    ...{ sentAtMs: now(), endedAtMs: 0, textAtMs: [] },
  };
  const patience = AbortSignal.timeout(question.patienceMs ?? PATIENCE_MS);
  const hangUp = new AbortController();
  const took = (text: string): void => {
    draft.text += text;
    draft.textAtMs.push(now());
    onText?.(draft.textAtMs.length, draft.node);
    if (draft.textAtMs.length === question.leaveAfter) hangUp.abort();
  };
  try {
    const ask = question.client === 'http' ? askByHand : askByClient;
    await ask(question, { api, signal: AbortSignal.any([patience, signal, hangUp.signal]), draft, took });
  } catch (thrown) {
    draft.broken = thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : String(thrown);
  }
  draft.timedOut = patience.aborted;
  draft.left = (hangUp.signal.aborted || signal.aborted) && !patience.aborted;
  return { ...draft, endedAtMs: now() };
}

interface Asking {
  readonly api: string;
  readonly signal: AbortSignal;
  readonly draft: Draft;
  readonly took: (text: string) => void;
}

/** The header that keeps a question where it is asked. */
const boundaryOf = ({ local = false }: Question): Record<string, string> =>
  local ? { 'x-meshnode-boundary': 'local' } : {};

const bodyOf = ({ model, prompt, seed, temperature, maxTokens }: Question) => ({
  ...{ model, seed, temperature, max_tokens: maxTokens },
  messages: [{ role: 'user' as const, content: prompt }],
});

/** The fields that are read here of a chunk or of a whole answer. */
interface Said {
  readonly choices?: readonly {
    readonly delta?: { readonly content?: string | null };
    readonly message?: { readonly content?: string | null };
    readonly finish_reason?: string | null;
  }[];
  readonly usage?: { readonly completion_tokens: number } | null;
  readonly error?: { readonly code?: string | null; readonly message?: string };
  readonly x_meshnode?: { readonly resumed?: number; readonly nodes?: readonly string[] };
}

function take(said: Said, { draft, took }: Asking): void {
  const [choice] = said.choices ?? [];
  const text = choice?.delta?.content ?? choice?.message?.content ?? '';
  if (text !== '') took(text);
  draft.finish = choice?.finish_reason ?? draft.finish;
  draft.completionTokens = said.usage?.completion_tokens ?? draft.completionTokens;
  draft.resumed = said.x_meshnode?.resumed ?? draft.resumed;
  draft.nodes = said.x_meshnode?.nodes ?? draft.nodes;
  if (said.error === undefined) return;
  draft.error = { code: said.error.code ?? 'unknown', message: said.error.message ?? '', retryAfterS: null };
}

const number = (text: string | string[] | undefined | null): number | null =>
  typeof text === 'string' && text !== '' ? Number(text) : null;

/** A fresh connection for each request, so that none fails because a restarted node forgot it. */
async function askByHand(question: Question, asking: Asking): Promise<void> {
  const { api, signal, draft } = asking;
  const { stream } = question;
  const body = JSON.stringify({
    ...bodyOf(question),
    ...(stream && { stream, stream_options: { include_usage: true } }),
  });
  const headers = {
    ...{ 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
    ...boundaryOf(question),
  };
  const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
    const url = `${api}/v1/chat/completions`;
    http.request(url, { method: 'POST', agent: false, headers, signal }, resolve).on('error', reject).end(body);
  });
  draft.status = response.statusCode ?? null;
  draft.requestId = (response.headers['x-request-id'] as string | undefined) ?? null;
  draft.node = (response.headers['x-meshnode-node'] as string | undefined) ?? null;
  draft.attempts = number(response.headers['x-meshnode-attempts']);
  response.setEncoding('utf8');
  let rest = '';
  for await (const data of response as AsyncIterable<string>) {
    rest += data;
    if (!isStream(response)) continue;
    const events = rest.split('\n\n');
    rest = events.pop() ?? '';
    for (const event of events) takeEvent(event, asking);
  }
  if (isStream(response)) return;
  take(JSON.parse(rest) as Said, asking);
  if (draft.error === null) draft.done = true;
  else draft.error = { ...draft.error, retryAfterS: number(response.headers['retry-after']) };
}

const isStream = (response: http.IncomingMessage): boolean =>
  (response.headers['content-type'] ?? '').startsWith('text/event-stream');

function takeEvent(event: string, asking: Asking): void {
  if (!event.startsWith('data: ')) return;
  const data = event.slice(6);
  if (data === '[DONE]') asking.draft.done = true;
  else take(JSON.parse(data) as Said, asking);
}

/** The official client does not tell whether `[DONE]` came: an answer that ends without an error counts as done. */
async function askByClient(question: Question, asking: Asking): Promise<void> {
  const { api, signal, draft } = asking;
  const client = new OpenAI({
    baseURL: `${api}/v1`,
    apiKey: 'none',
    maxRetries: 0,
    defaultHeaders: boundaryOf(question),
  });
  const body = bodyOf(question);
  try {
    if (question.stream) {
      const asked = { ...body, stream: true as const, stream_options: { include_usage: true } };
      const { data, response } = await client.chat.completions.create(asked, { signal }).withResponse();
      takeHeaders(response, draft);
      for await (const chunk of data) take(chunk as Said, asking);
    } else {
      const { data, response } = await client.chat.completions.create(body, { signal }).withResponse();
      takeHeaders(response, draft);
      take(data as Said, asking);
    }
    draft.done = !signal.aborted;
  } catch (thrown) {
    if (!(thrown instanceof APIError) || typeof thrown.code !== 'string') throw thrown;
    draft.status ??= typeof thrown.status === 'number' ? thrown.status : null;
    const headers = thrown.headers instanceof Headers ? thrown.headers : undefined;
    draft.requestId = headers?.get('x-request-id') ?? draft.requestId;
    draft.error = { code: thrown.code, message: thrown.message, retryAfterS: number(headers?.get('retry-after')) };
  }
}

function takeHeaders(response: Response, draft: Draft): void {
  draft.status = response.status;
  draft.requestId = response.headers.get('x-request-id');
  draft.node = response.headers.get('x-meshnode-node');
  draft.attempts = number(response.headers.get('x-meshnode-attempts'));
}
