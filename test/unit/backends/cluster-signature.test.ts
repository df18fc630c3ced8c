/** Signatures of requests to a Backend.AI manager: the published vectors, and what they cover. */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { test } from 'node:test';
import { type Signable, signatureOf, signedHeaders, stringToSign } from '../../../node/backends/cluster/signature.ts';
import fc from '../../support/fc.ts';

/** The well-known dummy keys of documentation pages. */
const KEYS = { accessKey: 'AKIAIOSFODNN7EXAMPLE', secretKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' };
const DATE = new Date('2025-01-02T03:04:05.678Z');

const VECTORS: readonly (Signable & { readonly signature: string })[] = [
  {
    ...{ method: 'GET', path: '/services', host: 'api.backend.ai', date: DATE, version: 'v4.20190615' },
    signature: 'a899baef228e3dddb2ec474d0ebfce93fbdc5966198a48cab5d85e4ca69aa5ab',
  },
  {
    ...{ method: 'POST', path: '/session', host: 'api.my-cluster.ai', date: DATE, version: 'v8.20240315' },
    signature: '0d4e9f28058ffe7e9ad0e5953ffa4e0a57d5d00a4f3c340fac1da88c4f601680',
  },
  {
    ...{ method: 'GET', path: '/services?name=llama-3-8b', host: '10.0.0.5:8091', date: DATE, version: 'v8.20240315' },
    signature: 'dceb09ad4f5f56d7f24c2afdffaae157865bc90578cb28aeede1d3f4be17e0f6',
  },
];
/** The published key of 2025-01-02. */
const DAY_KEY = Buffer.from('2cb1769c737c9bdcd5f1422561a2f0c0d8fb1b2a619ebd901f25cb4178398b4b', 'hex');

function withDayKey(request: Signable): string {
  const ofHost = createHmac('sha256', DAY_KEY).update(request.host).digest();
  return createHmac('sha256', ofHost).update(stringToSign(request)).digest('hex');
}

const [FIRST = assert.fail(), SECOND = assert.fail()] = VECTORS;

test('the three published vectors are met', () => {
  for (const { signature, ...request } of VECTORS) assert.equal(signatureOf(request, KEYS.secretKey), signature);
});

test('seven lines are signed, without a newline at the end', () => {
  const lines = [
    'GET',
    '/services',
    '2025-01-02T03:04:05.678Z',
    'host:api.backend.ai',
    'content-type:application/json',
    'x-backendai-version:v4.20190615',
    'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  ];
  assert.equal(stringToSign(FIRST), lines.join('\n'));
});

test('the headers carry the access key, the signature, the date and the version, and never the secret', () => {
  const headers = signedHeaders(FIRST, KEYS);
  assert.deepEqual(headers, {
    authorization: `BackendAI signMethod=HMAC-SHA256, credential=${KEYS.accessKey}:${FIRST.signature}`,
    'x-backendai-date': '2025-01-02T03:04:05.678Z',
    'x-backendai-version': 'v4.20190615',
    'content-type': 'application/json',
  });
  assert.ok(!JSON.stringify(headers).includes(KEYS.secretKey));
});

test('the key of the day is that of UTC, until the last millisecond', () => {
  const before = { ...FIRST, date: new Date('2025-01-02T23:59:59.999Z') };
  const after = { ...FIRST, date: new Date('2025-01-03T00:00:00.000Z') };
  assert.equal(signatureOf(before, KEYS.secretKey), withDayKey(before));
  assert.notEqual(signatureOf(after, KEYS.secretKey), withDayKey(after));
});

test('the media type is signed without its parameters', () => {
  const plain = { ...SECOND, contentType: 'multipart/form-data' };
  const bounded = { ...SECOND, contentType: 'multipart/form-data; boundary=x' };
  assert.equal(signatureOf(bounded, KEYS.secretKey), signatureOf(plain, KEYS.secretKey));
  assert.notEqual(signatureOf(plain, KEYS.secretKey), SECOND.signature);
});

test('a change of any signed part changes the signature, and nothing else can', () => {
  const request = fc.record({
    method: fc.constantFrom('GET', 'POST', 'DELETE', 'PATCH', 'PUT'),
    path: fc.stringMatching(/^\/[a-z0-9?=&/-]{0,40}$/),
    host: fc.stringMatching(/^[a-z]{1,12}\.[a-z]{2,4}(:[1-9][0-9]{1,3})?$/),
    date: fc.date({ min: new Date(0), max: new Date('2100-01-01'), noInvalidDate: true }),
    version: fc.constantFrom('v8.20240315', 'v5.20191215'),
  });
  fc.assert(
    fc.property(request, request, fc.string({ minLength: 1 }), (a, b, secret) => {
      const isSame = stringToSign(a) === stringToSign(b);
      assert.equal(signatureOf(a, secret) === signatureOf(b, secret), isSame);
      assert.match(signatureOf(a, secret), /^[0-9a-f]{64}$/);
      assert.notEqual(signatureOf(a, `${secret}x`), signatureOf(a, secret));
    }),
  );
});
