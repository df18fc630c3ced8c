import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ErrorCode, MeshError } from '../../../node/common/errors.ts';
import { ModelAliases } from '../../../node/routing/model-aliases.ts';
import { ModelChain } from '../../../node/routing/model-chain.ts';
import { withModel } from '../../../node/routing/named-model.ts';
import { sameRoutePauseMs } from '../../../node/routing/route-again.ts';
import type { InferenceKind, InferenceRequest } from '../../../protocols/inference/events.ts';
import fc from '../../support/fc.ts';

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
const bytes = (json: string): Uint8Array => new TextEncoder().encode(json);

test('a name stands for its models in order, names among them resolved, each once', () => {
  const aliases = new ModelAliases({
    'gpt-4o-mini': ['small', 'fallbacks', 'small'],
    fallbacks: ['medium', 'far'],
    medium: ['medium', 'far'],
  });
  assert.deepEqual(aliases.chainOf('gpt-4o-mini'), ['small', 'medium', 'far']);
  assert.deepEqual(aliases.chainOf('medium'), ['medium', 'far'], 'its own name is the model');
  assert.deepEqual(aliases.chainOf('other'), ['other']);
  for (const name of ['__proto__', 'constructor', 'toString']) assert.deepEqual(aliases.chainOf(name), [name]);
});

test('a circle and a chain without end are refused by name', () => {
  const refused = (table: Record<string, string[]>, message: RegExp): void => {
    assert.throws(() => new ModelAliases(table), { code: 'invalid_request', message });
  };
  refused({ a: ['b'], b: ['c', 'a'], c: ['d'] }, /models\.aliases: a goes round in a circle: a > b > a/);
  refused({ a: Array.from({ length: 9 }, (_, i) => `m${i}`) }, /a stands for 9 models: at most 8/);
});

test('whatever a table of names says, each chain is of models that end, or the table is refused', () => {
  const name = fc.constantFrom<string>('a', 'b', 'c', 'd', 'e', 'f', '__proto__');
  fc.assert(
    fc.property(fc.dictionary(name, fc.array(name, { minLength: 1, maxLength: 5 })), (table) => {
      let aliases: ModelAliases;
      try {
        aliases = new ModelAliases(table);
      } catch (thrown) {
        assert.ok(thrown instanceof MeshError && thrown.code === 'invalid_request');
        return;
      }
      for (const { name: alias, models } of aliases.list()) {
        assert.ok(models.length >= 1 && models.length <= 8);
        assert.equal(new Set(models).size, models.length);
        for (const model of models) assert.ok(!Object.hasOwn(table, model) || table[model]?.includes(model), alias);
      }
    }),
  );
});

test('a body gets another model and keeps every other byte', () => {
  const rows: readonly (readonly [string, string])[] = [
    ['{"model":"a"}', '{"model":"new"}'],
    ['{ "x" : {"model":"a"}, "model" :\n"a\\"b" , "n": 1e2 }', '{ "x" : {"model":"a"}, "model" :\n"new" , "n": 1e2 }'],
    [
      '{"\\u006dodel":"a","messages":[{"content":"\\"model\\":\\"a\\""}]}',
      '{"\\u006dodel":"new","messages":[{"content":"\\"model\\":\\"a\\""}]}',
    ],
    ['{"model":"a","model":"b"}', '{"model":"new","model":"new"}'],
    ['{"prompt":"model"}', '{"prompt":"model"}'],
  ];
  for (const [before, after] of rows) assert.equal(text(withModel(bytes(before), 'new')), after);
});

test('whatever a body holds, only the value of its model is another afterwards', () => {
  fc.assert(
    fc.property(
      fc.dictionary(fc.string(), fc.jsonValue()),
      fc.string(),
      fc.string(),
      fc.nat(4),
      (rest, from, to, indent) => {
        const body = { ...rest, model: from };
        const named = text(withModel(bytes(JSON.stringify(body, null, indent)), to));
        assert.equal(named, JSON.stringify({ ...body, model: to }, null, indent));
      },
    ),
  );
});

function request(kind: InferenceKind): InferenceRequest {
  return { requestId: '0'.repeat(32), kind, model: 'name', body: bytes('{"model":"name"}'), seed: 1 };
}

test('only what is said in words has substitutes', () => {
  for (const kind of ['chat', 'completion'] as const)
    assert.deepEqual(new ModelChain(request(kind), ['a', 'b']).models, ['a', 'b']);
  for (const kind of ['embedding', 'rerank', 'tokenize', 'detokenize'] as const) {
    const chain = new ModelChain(request(kind), ['a', 'b']);
    assert.deepEqual([chain.models, chain.request.model, chain.hasNext], [['a'], 'a', false]);
  }
});

test('the client is told of the model that began, and each is asked by its own name', () => {
  const chain = new ModelChain(request('chat'), ['a', 'b', 'c']);
  assert.deepEqual([chain.shown, text(chain.request.body)], ['a', '{"model":"a"}']);
  chain.next({ isCommitted: false });
  assert.deepEqual([chain.shown, text(chain.request.body)], ['b', '{"model":"b"}']);
  chain.next({ isCommitted: true });
  assert.deepEqual([chain.shown, text(chain.request.body), chain.hasNext], ['b', '{"model":"c"}', false]);
});

test('only a lone HTTP server is asked again, after a pause, and not where it was silent', () => {
  const pause = (code: ErrorCode, over: object = {}, retryAfterMs?: number): number | null =>
    sameRoutePauseMs({
      kind: 'http',
      failure: new MeshError(code, 'x', retryAfterMs === undefined ? {} : { retryAfterMs }),
      ...{ tookMs: 50, repeatWithinMs: 10_000, asked: 1, others: 0, random: 0 },
      ...over,
    });
  assert.deepEqual([pause('upstream_error'), pause('peer_unreachable'), pause('rate_limited')], [100, 100, 1000]);
  assert.deepEqual(
    [pause('upstream_error', { random: 1 }), pause('rate_limited', { random: 1 })],
    [300, 1500],
    'jitter',
  );
  assert.deepEqual([pause('rate_limited', {}, 2000), pause('upstream_error', {}, 3000)], [2000, 3000]);
  assert.equal(pause('rate_limited', {}, 5001), null, 'longer than a client waits');
  for (const over of [{ kind: 'peer' }, { others: 1 }, { asked: 2 }, { asked: 0 }, { tookMs: 10_001 }])
    assert.equal(pause('upstream_error', over), null, JSON.stringify(over));
  for (const code of ['first_token_timeout', 'invalid_request', 'context_length_exceeded', 'unauthorized'] as const)
    assert.equal(pause(code), null, code);
});
