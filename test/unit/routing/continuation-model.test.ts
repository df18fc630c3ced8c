/** Any deaths at any tokens, over one to four twins: what the client sees is the whole answer, or a part of it and one error. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { InferenceEvent } from '../../../protocols/inference/events.ts';
import fc from '../../support/fc.ts';
import { scriptedAnswer, scriptedSeed, scriptedToken } from '../../support/scripted-engine.ts';
import { askFor, type Death, SEED, type Twin, textOf, tokensOf, twinMesh } from '../../support/twin-mesh.ts';

const MOST_CONTINUATIONS = 8;

const code = fc.constantFrom<Death['code']>(
  'peer_unreachable',
  'engine_failed',
  'wedged',
  'draining',
  'upstream_error',
  'protocol_violation',
  'cut',
);
const death = fc.record({ after: fc.integer({ min: -1, max: 9 }), code });
const twin = fc.record({
  deaths: fc.array(fc.option(death, { freq: 2 }), { maxLength: 3 }),
  gone: fc.boolean(),
  digest: fc.constantFrom(undefined, undefined, undefined, 'f'.repeat(64)),
});
const course = fc.record({
  twins: fc.array(twin, { minLength: 1, maxLength: 4 }),
  count: fc.integer({ min: 1, max: 10 }),
  choices: fc.integer({ min: 1, max: 3 }),
  textLag: fc.integer({ min: 0, max: 3 }),
  stream: fc.boolean(),
  isHere: fc.boolean(),
});

/** A strict order of events, whoever they came from. */
function assertOrder(events: readonly InferenceEvent[]): void {
  const types = events.map(({ type }) => type).filter((type) => type !== 'progress');
  if (types.length === 0) return;
  assert.equal(types[0], 'accepted');
  assert.equal(types.filter((type) => type === 'accepted').length, 1);
  const ends = types.filter((type) => type === 'end').length;
  assert.ok(ends === 0 || (ends === 1 && types.at(-1) === 'end'));
}

/** Every token where it belongs; all of them when the answer is whole. */
function assertText(
  events: readonly InferenceEvent[],
  { choice, count, isWhole }: { choice: number; count: number; isWhole: boolean },
): void {
  const tokens = tokensOf(events, choice);
  const seed = scriptedSeed(SEED, choice);
  const own = tokens.map((_, index) => scriptedToken(seed, index));
  assert.deepEqual(tokens, own, 'a gap, a repetition or a foreign token');
  const golden = scriptedAnswer(SEED, count, choice);
  if (isWhole) assert.equal(textOf(events, choice), golden);
  else assert.ok(golden.startsWith(textOf(events, choice)));
}

test('random deaths leave the golden answer, or a strict part of it followed by one error', async () => {
  let resumedAnswers = 0;
  await fc.assert(
    fc.asyncProperty(course, async ({ twins: sketches, count, choices, textLag, stream, isHere }) => {
      const twins: Record<string, Twin> = {};
      for (const [index, { digest, ...sketch }] of sketches.entries()) {
        const kind = index === 0 && isHere ? 'engine' : 'peer';
        const id = kind === 'engine' ? 'here' : `p${index}`;
        twins[id] = { ...sketch, kind, textLag, ...(digest !== undefined && { digest }) };
      }
      const mesh = twinMesh(twins, { loadBalancing: { strategy: 'round-robin' } });
      const { events, error, nodes, resumed, attempts } = await mesh.run(askFor(count, { n: choices }), { stream });
      assertOrder(events);
      for (let choice = 0; choice < choices; choice++) assertText(events, { choice, count, isWhole: error === null });
      const end = events.at(-1);
      if (error === null) {
        assert.ok(end?.type === 'end');
        assert.deepEqual([end.usage.completionTokens, end.finishReasons.length], [count * choices, choices]);
      } else {
        assert.notEqual(end?.type, 'end');
        assert.ok(stream || events.length === 0, 'part of an answer that was not to be streamed');
      }
      assert.equal(resumed, Math.max(0, nodes.length - 1));
      assert.ok(resumed <= MOST_CONTINUATIONS);
      assert.equal(attempts, mesh.asked.length);
      assert.ok(mesh.asked.every(({ done }) => done));
      for (const id of Object.keys(twins)) assert.equal(mesh.stats.of(id).activeRequests, 0);
      if (resumed > 0 && error === null) resumedAnswers += 1;
      // Nothing of an attempt whose tokens were thrown away is claimed.
      const asked = mesh.ids();
      for (const node of nodes) assert.ok(asked.includes(node));
    }),
    { numRuns: Number(process.env['PROPERTY_RUNS'] ?? 400) },
  );
  assert.ok(resumedAnswers > 20, `only ${resumedAnswers} answers were resumed`);
});

test('as long as a twin lives and is listed, no death is seen', async () => {
  const onceEach = fc.array(
    fc.record({
      after: fc.integer({ min: 0, max: 9 }),
      code: fc.constantFrom<Death['code']>('peer_unreachable', 'wedged'),
    }),
    { minLength: 1, maxLength: 3 },
  );
  await fc.assert(
    fc.asyncProperty(onceEach, fc.boolean(), async (deaths, stream) => {
      const twins: Record<string, Twin> = { z: {} };
      // The first one must give a token: what dies before its first has one retry only, as ever.
      for (const [index, { after, code: how }] of deaths.entries()) {
        twins[`p${index}`] = { deaths: [{ after: index === 0 ? Math.max(1, after) : after, code: how }], gone: true };
      }
      const mesh = twinMesh(twins, { loadBalancing: { strategy: 'round-robin' } });
      const { events, error } = await mesh.run(askFor(10), { stream });
      assert.equal(error, null);
      assert.equal(textOf(events), scriptedAnswer(SEED, 10));
    }),
    { numRuns: Number(process.env['PROPERTY_RUNS'] ?? 100) },
  );
});
