/** Uploads, begins and awaits batches over HTTP, and says whether each answer is that of its own request. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { scriptedAnswer } from './scripted-engine.ts';

/** For everything that must come to pass; only a defect reaches it. */
const PATIENCE_MS = 60_000;

/** `GET /v1/batches/{id}`, as far as it is read here. */
export interface BatchView {
  readonly id: string;
  readonly status: string;
  readonly output_file_id: string | null;
  readonly error_file_id: string | null;
  readonly request_counts: { readonly total: number; readonly completed: number; readonly failed: number };
  readonly errors: { readonly data: readonly { code: string; line: number | null; message: string }[] } | null;
}

/** One line of an output or error file. */
export interface OutcomeLine {
  readonly custom_id: string | null;
  readonly response: {
    readonly status_code: number;
    readonly request_id: string;
    readonly body: {
      readonly choices?: readonly { readonly message?: { readonly content: string }; readonly text?: string }[];
      readonly data?: readonly { readonly embedding: unknown }[];
      readonly error?: { readonly code: string; readonly message: string; readonly param: string | null };
    };
  } | null;
  readonly error: { readonly code: string; readonly message: string; readonly line: number } | null;
}

const TOKENS = 4;

/** A chat line whose answer a scripted engine gives from its seed alone. */
export function chatLine(index: number, overrides: Record<string, unknown> = {}, body: object = {}): string {
  const messages = [{ role: 'user', content: `question ${index}` }];
  const asked = { model: 'm', messages, seed: index, max_tokens: TOKENS, ...body };
  return JSON.stringify({
    custom_id: `line-${index}`,
    method: 'POST',
    url: '/v1/chat/completions',
    body: asked,
    ...overrides,
  });
}

/** Is it what the engine gives for `chatLine(index)`? */
export function isAnswerOf(line: OutcomeLine, index: number): boolean {
  return line.response?.body.choices?.[0]?.message?.content === scriptedAnswer(index, TOKENS);
}

export class BatchClient {
  readonly #api: () => string;

  constructor(api: () => string) {
    this.#api = api;
  }

  async upload(text: string | Uint8Array<ArrayBuffer>): Promise<string> {
    const response = await fetch(`${this.#api()}/v1/files?purpose=batch&filename=in.jsonl`, {
      method: 'POST',
      headers: { 'content-type': 'application/jsonl' },
      body: text,
    });
    const body = (await response.json()) as { id: string };
    assert.equal(response.status, 200, JSON.stringify(body));
    return body.id;
  }

  async begin(text: string, more: object = {}): Promise<BatchView> {
    const input_file_id = await this.upload(text);
    return await this.post('/v1/batches', {
      input_file_id,
      endpoint: '/v1/chat/completions',
      completion_window: '24h',
      ...more,
    });
  }

  async post(path: string, body: object): Promise<BatchView> {
    const response = await fetch(this.#api() + path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    const answer = (await response.json()) as BatchView;
    assert.equal(response.status, 200, JSON.stringify(answer));
    return answer;
  }

  async get(id: string): Promise<BatchView> {
    return (await (await fetch(`${this.#api()}/v1/batches/${id}`)).json()) as BatchView;
  }

  /** Looks until `wanted`; a node that does not answer just now is asked again. */
  async until(id: string, wanted: (batch: BatchView) => boolean): Promise<BatchView> {
    const giveUpAt = performance.now() + PATIENCE_MS;
    for (;;) {
      const batch = await this.get(id).catch(() => null);
      if (batch !== null && wanted(batch)) return batch;
      if (performance.now() > giveUpAt) throw new Error(`waited in vain: ${JSON.stringify(batch)}`);
      await sleep(50);
    }
  }

  /** Until it is over. */
  async over(id: string): Promise<BatchView> {
    return await this.until(id, ({ status }) => ['completed', 'failed', 'expired', 'cancelled'].includes(status));
  }

  async content(id: string | null): Promise<OutcomeLine[]> {
    if (id === null) return [];
    const text = await (await fetch(`${this.#api()}/v1/files/${id}/content`)).text();
    assert.ok(text.endsWith('\n'));
    return text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as OutcomeLine);
  }
}

/** Asserts that each of `chatLine(0)` to `chatLine(count - 1)` came out once, with its own answer. */
export function assertEachOnce(lines: readonly OutcomeLine[], count: number): void {
  const byId = new Map(lines.map((line) => [line.custom_id, line]));
  assert.equal(lines.length, count);
  assert.equal(byId.size, count, 'no custom_id comes twice');
  for (let index = 0; index < count; index++) {
    const line = byId.get(`line-${index}`);
    assert.ok(line !== undefined && isAnswerOf(line, index), `line ${index}: ${JSON.stringify(line)}`);
  }
}
