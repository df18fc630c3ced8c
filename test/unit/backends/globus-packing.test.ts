/** Arguments and results as Globus Compute carries them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { packArguments, unpackResult } from '../../../node/backends/globus-compute/packing.ts';
import fc from '../../support/fc.ts';
import { readPacked } from '../../support/globus-stand-in-packing.ts';

test('packed arguments count code points, as Python does', () => {
  const params = {
    openai_endpoint: 'chat/completions',
    api_port: 8000,
    model: 'facebook/opt-125m',
    messages: [{ role: 'user', content: 'hi 👋' }],
  };
  assert.equal(
    packArguments([{ model_params: params }]),
    '150\n11\n[{"model_params":{"openai_endpoint":"chat/completions","api_port":8000,"model":"facebook/opt-125m","messages":[{"role":"user","content":"hi 👋"}]}}]5\n11\n{}',
  );
});

test('whatever is packed is read back by an independent reader', () => {
  fc.assert(
    fc.property(
      fc.array(fc.jsonValue({ stringUnit: 'binary', maxDepth: 2 }), { maxLength: 3 }),
      fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue({ stringUnit: 'binary', maxDepth: 1 }), { maxKeys: 3 }),
      (args, kwargs) => {
        const plain = JSON.parse(JSON.stringify({ args, kwargs })) as unknown;
        assert.deepEqual(readPacked(packArguments(args, kwargs)), plain);
      },
    ),
  );
});

test('a lone surrogate does not put the lengths out of step', () => {
  assert.deepEqual(readPacked(packArguments(['a\ud83d', 'b\udc4b👋'])).args, ['a\ud83d', 'b\udc4b👋']);
});

test('a result is read, and one for Python only is refused by the name of its serializer', () => {
  assert.deepEqual(unpackResult('11\n{"a":[1,"👋"]}', 'site'), { a: [1, '👋'] });
  for (const header of ['00', '01', '03', '04', '10', '12', '13']) {
    assert.throws(() => unpackResult(`${header}\ngASVBQAAAAAAAABLAS4=\n`, 'site'), {
      code: 'upstream_error',
      message: new RegExp(`^site .*serializer ${header}`),
    });
  }
  for (const damaged of ['', '11', '{"a":1}', '11\n{"a":', '111\n{}']) {
    assert.throws(() => unpackResult(damaged, 'site'), { code: 'upstream_error' });
  }
});
