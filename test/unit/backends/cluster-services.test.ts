/** What a manager says in its lists and refusals, and what becomes of it here. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errorOfManager, isAuthRefusal, problemOf } from '../../../node/backends/cluster/manager-problem.ts';
import { parseServices } from '../../../node/backends/cluster/service-list.ts';
import { ServiceTokens } from '../../../node/backends/cluster/service-tokens.ts';
import { MeshError } from '../../../node/common/errors.ts';
import fc from '../../support/fc.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const ORIGIN = { name: 'lab', endpoint: 'https://manager.example', allowHttp: false };
const service = (more: object): object => ({
  ...{ id: 'a1', name: 'llama', desired_session_count: 1, active_route_count: 1 },
  ...{ service_endpoint: 'https://app.example/s/llama/', is_public: false, ...more },
});

test('a service is usable when it has a route and an address', () => {
  const list = [
    service({}),
    service({ id: 'a2', name: 'parked', active_route_count: 0 }),
    service({ id: 'a3', name: 'starting', service_endpoint: null }),
    service({ id: 'a4', name: 'open', is_public: true }),
    service({ id: '../x', name: 'odd' }),
    null,
    7,
  ];
  assert.deepEqual(parseServices(list, ORIGIN), {
    usable: [
      { id: 'a1', name: 'llama', url: 'https://app.example/s/llama', isPublic: false },
      { id: 'a4', name: 'open', url: 'https://app.example/s/llama', isPublic: true },
    ],
    problems: [],
  });
});

test('services of one name, or with a name that is none, go by their id', () => {
  const list = [service({}), service({ id: 'a2' }), service({ id: 'a3', name: 'x/y z' })];
  assert.deepEqual(
    parseServices(list, ORIGIN).usable.map(({ name }) => name),
    ['llama', 'a2', 'a3'],
  );
});

test('nothing is sent to link-local addresses, in the clear without leave, or to this machine for a manager elsewhere', () => {
  const bad = [
    'http://app.example',
    'https://169.254.169.254/',
    'https://127.0.0.1:8642',
    'https://localhost',
    'https://[::1]',
    'https://u:p@x.example',
    'file:///etc/passwd',
  ];
  for (const endpoint of bad) {
    const { usable, problems } = parseServices([service({ service_endpoint: endpoint })], ORIGIN);
    assert.deepEqual(usable, [], endpoint);
    assert.equal(problems.length, 1, endpoint);
    assert.ok(!problems[0]?.includes('u:p'), endpoint);
  }
  const near = { name: 'lab', endpoint: 'http://127.0.0.1:8090', allowHttp: true };
  assert.equal(parseServices([service({ service_endpoint: 'http://127.0.0.1:9' })], near).usable.length, 1);
});

test('anything that is no list is refused, and any list is read', () => {
  for (const json of [null, {}, 'x', 1]) assert.throws(() => parseServices(json, ORIGIN), { code: 'upstream_error' });
  fc.assert(
    fc.property(
      fc.array(
        fc.oneof(
          fc.jsonValue(),
          fc.dictionary(fc.constantFrom('id', 'name', 'active_route_count', 'service_endpoint'), fc.jsonValue()),
        ),
      ),
      (list) => {
        const { usable } = parseServices(list, ORIGIN);
        assert.equal(new Set(usable.map(({ name }) => name)).size, usable.length);
        for (const { url } of usable) assert.ok(url.startsWith('https://'));
      },
    ),
  );
});

const refusal = (status: number, body: object | string, headers: Record<string, string> = {}) =>
  errorOfManager({
    name: 'lab',
    status,
    headers,
    body: typeof body === 'string' ? body : JSON.stringify(body),
    nowMs: 0,
  });
const problem = (kind: string, title: string, msg: string): object => ({
  type: `https://api.backend.ai/probs/${kind}`,
  title,
  msg,
});

test('a refusal says what is wrong: the key, the secret, the permission', () => {
  const rows: readonly [number, object | string, string, RegExp][] = [
    [
      401,
      problem('auth-failed', 'Credential/signature mismatch.', 'Access key not found'),
      'unauthorized',
      /does not know the access key/,
    ],
    [
      401,
      problem('auth-failed', 'Credential/signature mismatch.', 'Signature mismatch'),
      'unauthorized',
      /secret key is wrong/,
    ],
    [401, '<h1>no</h1>', 'unauthorized', /neither this access key nor its secret$/],
    [
      403,
      problem('generic-forbidden', 'You are not allowed.', 'the key has no access'),
      'forbidden',
      /ask its owner for the permission/,
    ],
    [404, problem('endpoint-not-found', 'No such endpoint.', ''), 'not_found', /No such endpoint/],
    [412, problem('quota-exceeded', 'You have reached your quota.', ''), 'invalid_request', /quota/],
    [429, problem('rate-limit-exceeded', 'Too many.', ''), 'rate_limited', /Too many/],
    [302, '', 'upstream_error', /never followed/],
    [502, '<h1>Bad Gateway</h1>', 'upstream_error', /^lab answered 502$/],
  ];
  for (const [status, body, code, message] of rows) {
    const error = refusal(status, body);
    assert.equal(error.code, code);
    assert.match(error.message, message);
    assert.equal(problemOf(error)?.status, status);
  }
  assert.equal(refusal(429, {}, { 'retry-after': '3' }).facts.retryAfterMs, 3000);
  assert.equal(problemOf(new MeshError('not_found', 'x')), null);
});

test('only 401, and the 400 by which older managers refuse a date, are about the signature', () => {
  assert.ok(isAuthRefusal(refusal(401, {})));
  assert.ok(isAuthRefusal(refusal(400, problem('invalid-auth-params', 'Date/time sync error.', ''))));
  assert.ok(!isAuthRefusal(refusal(400, problem('invalid-api-params', 'x', ''))));
  assert.ok(!isAuthRefusal(refusal(403, {})));
});

test('a token is replaced after four fifths of its life, which a JWT may say', async () => {
  const clock = new ManualClock();
  const part = (json: object): string => Buffer.from(JSON.stringify(json)).toString('base64url');
  let token = 'opaque';
  const asked: unknown[] = [];
  const client = {
    call: async <T>(ask: unknown): Promise<T> => {
      asked.push(ask);
      return { token } as T;
    },
  };
  const tokens = new ServiceTokens({ client, clock });
  const { signal } = new AbortController();
  assert.equal(tokens.get('a1'), null);
  assert.ok(tokens.isDue('a1'));
  await tokens.renew('a1', signal);
  assert.deepEqual(asked, [{ method: 'POST', path: '/services/a1/token', body: { duration: '1h' } }]);
  assert.equal(tokens.get('a1'), 'opaque');
  clock.advance(48 * 60_000 - 1);
  assert.ok(!tokens.isDue('a1'));
  clock.advance(1);
  assert.ok(tokens.isDue('a1'));
  token = `${part({ alg: 'x' })}.${part({ iat: 1000, exp: 1100 })}.sig`;
  await tokens.renew('a1', signal);
  clock.advance(80_000);
  assert.ok(tokens.isDue('a1'));
  token = 'two words';
  await assert.rejects(tokens.renew('a1', signal), { code: 'upstream_error' });
  tokens.keep(new Set(['a2']));
  assert.equal(tokens.get('a1'), null);
});
