import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { errorInBand, errorOfRefusal, withoutSecret } from '../../../node/backends/openai-http/upstream-errors.ts';
import { MeshError } from '../../../node/common/errors.ts';
import { Canaries } from '../../support/canaries.ts';
import fc from '../../support/fc.ts';

const said = (body: string, status = 400): MeshError =>
  errorOfRefusal({ name: 'box', status, headers: {}, body, nowMs: 0 });

describe('withoutSecret', () => {
  test('takes a secret out of a message in every form in which a program may spill it', () => {
    const visible = fc.integer({ min: 0x21, max: 0x7e }).map((code) => String.fromCharCode(code));
    const secrets = fc.string({ unit: visible, minLength: 12, maxLength: 60 });
    fc.assert(
      fc.property(secrets, fc.string({ maxLength: 20 }), fc.string({ maxLength: 20 }), (secret, before, after) => {
        const canaries = new Canaries();
        canaries.add('secret', secret);
        for (const { text } of canaries.forms()) {
          const { message } = withoutSecret(new MeshError('invalid_request', `${before} ${text} ${after}`), secret);
          assert.deepEqual(canaries.findIn(message), []);
        }
      }),
    );
  });

  test('finds it within the Basic header of an account', () => {
    const secret = 'k3-Secret/of+the=account';
    for (const id of ['a', 'ab', 'abc', '5a1f9c3e-0000']) {
      const header = Buffer.from(`${id}:${secret}`).toString('base64');
      const { message } = withoutSecret(
        said(JSON.stringify({ error: { message: `Basic ${header} refused` } })),
        secret,
      );
      const shown = Buffer.from(message.split(' ').find((word) => word.includes('[key]')) ?? '', 'base64');
      assert.ok(message.includes('[key]'), message);
      assert.equal(shown.toString('latin1').includes('Secret'), false);
    }
  });

  test('leaves nothing of one that stands where a long message was cut', () => {
    const secret = 'sk-0123456789abcdefghij';
    for (let padding = 470; padding <= 500; padding += 1) {
      const error = withoutSecret(
        said(JSON.stringify({ error: { message: `${'x'.repeat(padding)}${secret}` } })),
        secret,
      );
      assert.equal(error.message.includes('sk-0'), false, `${padding}: ${error.message.slice(-40)}`);
    }
  });

  test('does not let it out as the name of a field', () => {
    const secret = 'sk-proj-0123456789';
    const error = withoutSecret(said(JSON.stringify({ error: { message: 'no', param: secret } })), secret);
    assert.equal(error.facts.param, undefined);
    assert.equal(error.facts.httpStatus, 400);
    const other = withoutSecret(said(JSON.stringify({ error: { message: secret, param: 'n' } })), secret);
    assert.deepEqual([other.message, other.facts.param], ['box answered 400: [key]', 'n']);
  });

  test('keeps an error as it is that says nothing of it', () => {
    const error = said(JSON.stringify({ error: { message: 'too long …', param: 'messages' } }));
    assert.equal(withoutSecret(error, 'sk-0123456789'), error);
    assert.equal(withoutSecret(error, null), error);
  });
});

describe('an error whose fields are no texts', () => {
  test('is still an error of the server', () => {
    const deep = '['.repeat(20_000) + ']'.repeat(20_000);
    for (const odd of ['{"toString":1,"valueOf":1}', '[[[]]]', 'true', '{"a":1}', deep]) {
      const text = `{"error":{"message":"no","code":${odd},"type":${odd},"param":${odd}}}`;
      assert.equal(said(text, 500).code, 'upstream_error');
      const { error } = JSON.parse(text) as { error: unknown };
      assert.equal(errorInBand('box', error).code, 'upstream_error');
    }
    assert.equal(said('{"error":{"message":"no","code":"draining"}}', 503).code, 'draining');
    assert.equal(errorInBand('box', { message: 'no', code: 429 }).code, 'rate_limited');
  });
});
