/** Batch work in the real engine: it yields, it is never taken for wedged, and it comes out as it would alone. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ask, chatRequest, demoEngine, neverAborted, type WholeAnswer, wholeAnswer } from '../support/demo-engine.ts';

const STORY = { temperature: 1, seed: 7, max_tokens: 200, logit_bias: {} };
/** One step each two seconds, and those that were begun. */
const FEW_TOKENS = 12;

test('while somebody’s answer is generated batch answers all but stand still, and then end as if they had been alone', async (t) => {
  const engine = demoEngine(t, { wedgedAfterMs: 1000 });
  const alone = await ask(engine, 'Tell me a story.', STORY);
  let tokens = 0;
  const batch = async (): Promise<WholeAnswer> => {
    const events = engine.infer(
      { ...chatRequest('Tell me a story.', STORY), priority: 'batch' },
      { signal: neverAborted },
    );
    const counted = async function* () {
      for await (const event of events) {
        if (event.type === 'chunk') tokens += event.tokens.length;
        yield event;
      }
    };
    return await wholeAnswer(counted());
  };
  const batches = [batch(), batch(), batch()];
  while (tokens < 6) await new Promise((resolve) => setImmediate(resolve));
  // What the child had sent before may still be on its way through this process.
  const arrived = async (): Promise<number> => {
    for (let before = -1; before !== tokens; ) {
      before = tokens;
      for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    }
    return tokens;
  };
  let person = 0;
  let atFirst = 0;
  let atLast = 0;
  for await (const event of engine.infer(chatRequest('Tell me a story.', STORY), { signal: neverAborted })) {
    if (event.type !== 'chunk') continue;
    if (person === 0) atFirst = await arrived();
    person += event.tokens.length;
    atLast = tokens;
  }
  const meanwhile = atLast - atFirst;
  assert.ok(meanwhile <= FEW_TOKENS && person > FEW_TOKENS * 3, `${meanwhile} tokens of batches beside ${person}`);
  for (const answer of await Promise.all(batches)) assert.equal(answer.text, alone.text);
});

test('a batch request takes one slot at a time, however many answers it asks for', async (t) => {
  const engine = demoEngine(t);
  await ask(engine, 'Hello.', { max_tokens: 1 });
  let most = 0;
  const request = {
    ...chatRequest('Tell me a story.', { ...STORY, max_tokens: 20, n: 4 }),
    priority: 'batch' as const,
  };
  const events = async function* () {
    for await (const event of engine.infer(request, { signal: neverAborted })) {
      most = Math.max(most, engine.load().inFlight);
      yield event;
    }
  };
  const { choices } = await wholeAnswer(events());
  assert.equal(choices.length, 4);
  assert.equal(most, 1);
});
