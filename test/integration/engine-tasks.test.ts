/** Embeddings in the real engine child, beside what else it does. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import type { InferenceEvent } from '../../protocols/inference/events.ts';
import { ask, DEMO, demoEngine, inferenceRequest, ModelList, modelFile, neverAborted } from '../support/demo-engine.ts';
import { TINY_BERT_CONTEXT, writeTinyBert } from '../support/tiny-bert.ts';

const directory = mkdtempSync(path.join(tmpdir(), 'meshnode-tasks-'));
after(() => rmSync(directory, { recursive: true, force: true }));

async function drained(events: AsyncIterable<InferenceEvent>): Promise<InferenceEvent[]> {
  const list: InferenceEvent[] = [];
  for await (const event of events) list.push(event);
  return list;
}

test('a cancelled embedding frees its slot for who waits', async (context) => {
  const engine = demoEngine(context, { parallel: 1 });
  await ask(engine, 'Hello', { max_tokens: 1 });
  const input = Array.from({ length: 64 }, (_, index) => `Number ${index}: ${'word '.repeat(60)}`);
  const gone = new AbortController();
  const begun = drained(engine.infer(inferenceRequest('embedding', { model: DEMO, input }), { signal: gone.signal }));
  const waiting = ask(engine, 'Hello', { max_tokens: 1 });
  assert.deepEqual([engine.load().inFlight, engine.load().queued], [1, 1]);
  gone.abort();
  await assert.rejects(begun, { code: 'client_closed' });
  assert.equal((await waiting).tokens.length, 1);
  assert.deepEqual([engine.load().inFlight, engine.load().queued], [0, 0]);
});

test('an input as long as a context beyond what the model was trained for cannot crash the engine', async (context) => {
  const file = path.join(directory, 'bert.gguf');
  writeTinyBert(file, 'embed');
  const models = new ModelList([
    { ...modelFile('bert', file), architecture: 'bert', trainedContext: TINY_BERT_CONTEXT },
  ]);
  const engine = demoEngine(context, { contextTokens: 4 * TINY_BERT_CONTEXT }, models);
  const embed = (input: string | string[]) =>
    drained(engine.infer(inferenceRequest('embedding', { model: 'bert', input }, 'bert'), { signal: neverAborted }));
  const pid = async (): Promise<number | undefined> => {
    await embed('a');
    return engine.children().get('bert');
  };
  const before = await pid();
  await assert.rejects(embed('a'.repeat(2 * TINY_BERT_CONTEXT)), { code: 'context_length_exceeded' });
  assert.equal((await embed('a'.repeat(TINY_BERT_CONTEXT - 2))).at(-1)?.type, 'end');
  const continued = inferenceRequest(
    'completion',
    { model: 'bert', prompt: 'a'.repeat(2 * TINY_BERT_CONTEXT) },
    'bert',
  );
  await assert.rejects(drained(engine.infer(continued, { signal: neverAborted })), {
    code: 'invalid_request',
    message: /generates no text/,
  });
  assert.equal(await pid(), before);
});
