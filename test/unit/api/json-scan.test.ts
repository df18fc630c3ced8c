import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { bodyJson } from '../../../protocols/inference/bodies/body-json.ts';
import { scanJson } from '../../../protocols/inference/bodies/json-scan.ts';
import fc from '../../support/fc.ts';

const scan = (text: string): void => scanJson(Buffer.from(text));
const refused = { code: 'invalid_request' };

describe('scanJson', () => {
  it('takes 64 levels and refuses 65', () => {
    scan('['.repeat(64) + ']'.repeat(64));
    assert.throws(() => scan('['.repeat(65) + ']'.repeat(65)), refused);
    assert.throws(() => scan('{"a":'.repeat(65)), refused);
  });

  it('ends on a bomb of 400,000 levels', () => {
    assert.throws(() => scan('['.repeat(400_000)), refused);
  });

  it('stands before every body, those of peers too', () => {
    const deep = '['.repeat(65) + ']'.repeat(65);
    assert.throws(() => bodyJson(Buffer.from(`{"model":"m","metadata":${deep}}`)), refused);
    assert.throws(() => bodyJson(Buffer.from('{"model":"m","__proto__":{}}')), refused);
  });

  it('counts only brackets outside strings', () => {
    scan(JSON.stringify({ content: '[{'.repeat(1000), escaped: `"\\${'['.repeat(100)}` }));
  });

  for (const key of ['__proto__', '\\u005f_proto__', '\\u005F\\u005f\\u0070roto__']) {
    it(`refuses the key ${key}`, () => {
      assert.throws(() => scan(`{"model":"m","${key}" \n: {}}`), refused);
      assert.throws(() => scan(`{"messages":[{"${key}":1}]}`), refused);
    });
  }

  it('lets text that speaks of __proto__ pass', () => {
    scan(JSON.stringify({ content: '__proto__', other: '"__proto__": 1', list: ['__proto__'] }));
  });

  it('takes whatever JSON.stringify prints', () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 8 }), (text) => {
        fc.pre(!text.includes('__proto__'));
        scan(text);
      }),
    );
  });

  it('passes over any bytes without another error than its own', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          scanJson(bytes);
        } catch (error) {
          assert.equal((error as { code?: string }).code, 'invalid_request');
        }
      }),
    );
  });
});
