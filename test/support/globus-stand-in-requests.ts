/** Requests to the model of the stand-in's site, and what comes of them. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import type { InferenceEvent, InferenceKind, InferenceRequest } from '../../protocols/inference/events.ts';
import { MODEL, SLUG, type StandInSite } from './globus-stand-in-site.ts';

export function requestOf(kind: InferenceKind, body: object): InferenceRequest {
  const requestId = randomUUID().replaceAll('-', '');
  return { requestId, kind, model: MODEL, seed: 1, body: Buffer.from(JSON.stringify({ model: MODEL, ...body })) };
}

export const chat = (more: object = {}): InferenceRequest => requestOf('chat', { messages: [], ...more });

/** The events of an answer by the site's backend. */
export function ask(
  { sites }: StandInSite,
  request: InferenceRequest = chat(),
  signal: AbortSignal = AbortSignal.timeout(20_000),
): AsyncIterable<InferenceEvent> {
  const holder = sites.holderOf(SLUG);
  assert.ok(holder !== null);
  return holder.backend.infer(request, { signal });
}

/** All of them. */
export async function collect(events: AsyncIterable<InferenceEvent>): Promise<readonly InferenceEvent[]> {
  const all: InferenceEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}

export function textOf(events: readonly InferenceEvent[]): string {
  return events.map((event) => (event.type === 'chunk' ? event.text : '')).join('');
}

/** What a model server answers to a chat request. */
export function completion(content: string): object {
  return {
    id: 'c',
    object: 'chat.completion',
    model: MODEL,
    choices: [{ index: 0, message: { role: 'assistant', content }, finish_reason: 'stop' }],
    usage: { prompt_tokens: 7, completion_tokens: 3, total_tokens: 10 },
  };
}
