/** The signed client against the strict manager: what arrives, and what every refusal says. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { inspect } from 'node:util';
import { ManagerClient, type ManagerClientOptions } from '../../node/backends/cluster/manager-client.ts';
import { problemOf } from '../../node/backends/cluster/manager-problem.ts';
import { systemClock } from '../../node/common/clock.ts';
import type { MeshError } from '../../node/common/errors.ts';
import { ClusterManager, KEYPAIR, type ManagerOptions } from '../support/cluster-manager/manager.ts';
import { json, OpenAiServer } from '../support/openai-server.ts';

const MINUTE = 60_000;
const { signal } = new AbortController();

async function started(context: TestContext, options: ManagerOptions = {}): Promise<ClusterManager> {
  const manager = await ClusterManager.start(options);
  context.after(() => manager.stop());
  return manager;
}

function clientOf(context: TestContext, endpoint: string, options: Partial<ManagerClientOptions> = {}): ManagerClient {
  const { accessKey, secretKey } = KEYPAIR;
  const known = { endpoint, accessKey, secretKey: () => secretKey, allowHttp: true, name: 'lab' };
  const client = new ManagerClient({ clock: systemClock }, { ...known, ...options });
  context.after(() => client.close());
  return client;
}

const refused = async (call: Promise<unknown>, code: string, message: RegExp): Promise<MeshError> => {
  const error = await call.then(
    () => assert.fail('it was taken'),
    (thrown: MeshError) => thrown,
  );
  assert.equal(error.code, code);
  assert.match(error.message, message);
  assert.ok(!inspect(error, { depth: 9 }).includes(KEYPAIR.secretKey), 'the secret is in no error');
  return error;
};

test('C-2 C-3 C-10 every request is signed anew, and the secret is in none of them', async (context) => {
  const manager = await started(context);
  const client = clientOf(context, manager.url);
  manager.addService('llama', 'm');
  const echo = await client.call<{ echo: string }>({ method: 'GET', path: '/auth/test?echo=a%20b&x=1' }, signal);
  assert.equal(echo.echo, 'a b');
  const [service] = await client.call<readonly { id: string }[]>({ method: 'GET', path: '/services' }, signal);
  const path = `/services/${service?.id}`;
  await client.call({ method: 'POST', path: `${path}/scale`, body: { to: 2 } }, signal);
  await client.call({ method: 'DELETE', path }, signal);
  assert.deepEqual(await client.call({ method: 'GET', path: '/services' }, signal), []);
  const [hello, ...signed] = manager.called;
  assert.equal(hello?.headers.authorization, undefined);
  assert.equal(signed.length, 5);
  const signatures = new Set(signed.map(({ headers }) => headers.authorization));
  assert.equal(signatures.size, 5);
  for (const { headers } of signed) assert.equal(headers['x-backendai-version'], 'v8.20240315');
  assert.ok(!JSON.stringify(manager.called).includes(KEYPAIR.secretKey));
});

test('an endpoint is signed by its host, whatever slashes or path it has', async (context) => {
  const manager = await started(context);
  for (const endpoint of [`${manager.url}/`, `${manager.url}//`, manager.url.replace('127.0.0.1', 'LOCALHOST')]) {
    const client = clientOf(context, endpoint);
    await client.call({ method: 'GET', path: '/auth/role' }, signal);
  }
});

test('C-3 a wrong secret and an unknown key are told apart, and asked once only', async (context) => {
  const manager = await started(context);
  const wrong = clientOf(context, manager.url, { secretKey: () => 'not-the-secret' });
  const error = await refused(
    wrong.call({ method: 'GET', path: '/services' }, signal),
    'unauthorized',
    /secret key is wrong/,
  );
  assert.equal(problemOf(error)?.kind, 'auth-failed');
  assert.equal(manager.calls('GET', '/services').length, 1);
  const unknown = clientOf(context, manager.url, { accessKey: 'AKIANOBODY' });
  await refused(
    unknown.call({ method: 'GET', path: '/services' }, signal),
    'unauthorized',
    /does not know the access key/,
  );
  const none = clientOf(context, manager.url, { secretKey: () => null });
  await refused(none.call({ method: 'GET', path: '/services' }, signal), 'unauthorized', /no secret key/);
});

for (const skewStatus of [401, 400] as const) {
  test(`a clock that is 16 minutes off is corrected by one more request (${skewStatus})`, async (context) => {
    const manager = await started(context);
    manager.faults.skewStatus = skewStatus;
    for (const [minutes, sentence] of [
      [16, /16 min behind lab's/],
      [-16, /16 min ahead of lab's/],
    ] as const) {
      manager.faults.clockOffsetMs = minutes * MINUTE;
      const client = clientOf(context, manager.url);
      const before = manager.called.length;
      await client.call({ method: 'GET', path: '/auth/role' }, signal);
      assert.equal(manager.called.length - before, 3);
      await client.call({ method: 'GET', path: '/auth/role' }, signal);
      assert.equal(manager.called.length - before, 4, 'the offset is kept');
      assert.match(client.clockProblem ?? '', sentence);
      assert.ok(Math.abs(client.clockOffsetMs - minutes * MINUTE) < 5000);
    }
  });
}

test('14 minutes off is nothing, and a wrong secret behind a wrong clock is told', async (context) => {
  const manager = await started(context);
  manager.faults.clockOffsetMs = 14 * MINUTE;
  const near = clientOf(context, manager.url);
  await near.call({ method: 'GET', path: '/auth/role' }, signal);
  assert.equal(near.clockProblem, null);
  manager.faults.clockOffsetMs = 20 * MINUTE;
  const client = clientOf(context, manager.url, { secretKey: () => 'not-the-secret' });
  const call = client.call({ method: 'GET', path: '/services' }, signal);
  await refused(call, 'unauthorized', /secret key is wrong.*; besides, the clock here is 20 min behind lab's/);
  assert.equal(manager.calls('GET', '/services').length, 2);
});

test('C-4 a request caught on its way is of no use for another, nor after 15 minutes; until then it can be repeated', async (context) => {
  const manager = await started(context);
  const service = manager.addService('llama', 'm');
  const path = `/services/${service.id}/scale`;
  await clientOf(context, manager.url).call({ method: 'POST', path, body: { to: 1 } }, signal);
  const caught = manager.calls('POST', path)[0] ?? assert.fail();
  const headers = Object.fromEntries(
    ['authorization', 'content-type', 'x-backendai-date', 'x-backendai-version'].map((name) => [
      name,
      String(caught.headers[name]),
    ]),
  );
  const replayed = async (method: string, to: string, more: Record<string, string> = {}): Promise<number> => {
    const body = JSON.stringify({ to: 3 });
    return (await fetch(`${manager.url}${to}`, { method, headers: { ...headers, ...more }, body })).status;
  };
  assert.equal(await replayed('POST', `/services/${service.id}/token`), 401);
  assert.equal(await replayed('PUT', path), 401);
  assert.equal(await replayed('POST', path, { 'x-backendai-date': new Date().toISOString() }), 401);
  // Why an endpoint must have TLS: neither body nor repetition is covered.
  assert.equal(await replayed('POST', path), 200);
  assert.equal(service.desired, 3);
  manager.faults.clockOffsetMs = 16 * MINUTE;
  assert.equal(await replayed('POST', path), 401);
});

test('C-18 a missing permission is said so', async (context) => {
  const manager = await started(context, { keypairs: [{ ...KEYPAIR, forbids: ['services'] }] });
  const call = clientOf(context, manager.url).call({ method: 'GET', path: '/services' }, signal);
  await refused(call, 'forbidden', /ask its owner for the permission.*no access to/);
});

test('the version decides where sessions are, and what is no manager or too old is refused', async (context) => {
  const four = await started(context, { version: 'v4.20190615' });
  assert.equal(await clientOf(context, four.url).sessionPrefix(signal), '/kernel');
  await clientOf(context, four.url).call({ method: 'GET', path: '/auth/role' }, signal);
  const eight = await started(context);
  assert.equal(await clientOf(context, eight.url).sessionPrefix(signal), '/session');
  assert.deepEqual(await clientOf(context, eight.url).version(signal), { api: 'v8.20240315', manager: '24.03.1' });
  const old = await started(context, { version: 'v3.20181215' });
  await refused(clientOf(context, old.url).version(signal), 'upstream_error', /older than/);
  const other = await OpenAiServer.start();
  context.after(() => other.stop());
  await refused(clientOf(context, other.url).version(signal), 'upstream_error', /is no Backend.AI manager/);
});

test('no redirect is followed, whoever sends it', async (context) => {
  const manager = await started(context);
  const target = await OpenAiServer.start();
  const front = await OpenAiServer.start();
  context.after(() => Promise.all([target.stop(), front.stop()]));
  front.models = json(307, {}, { location: `${target.url}/services` });
  await refused(clientOf(context, front.url).version(signal), 'upstream_error', /redirect, which is never followed/);
  front.models = (response, asked) =>
    (asked.path === '/' ? json(200, { version: 'v8.20240315' }) : json(302, {}, { location: manager.url }))(
      response,
      asked,
    );
  const call = clientOf(context, front.url).call({ method: 'GET', path: '/services' }, signal);
  await refused(call, 'upstream_error', /redirect, which is never followed/);
  assert.equal(target.asked.length, 0);
  assert.equal(manager.called.length, 0);
});

test('an endpoint in the clear wants leave, and a link-local one is never spoken to', (context) => {
  const build = (endpoint: string, allowHttp: boolean) => () => clientOf(context, endpoint, { allowHttp });
  assert.throws(build('http://10.0.0.5:8091', false), { code: 'invalid_request', message: /no TLS.*--allow-http/ });
  assert.throws(build('http://169.254.169.254', true), { code: 'invalid_request' });
  assert.throws(build('ftp://x.example', true), { code: 'invalid_request' });
  assert.throws(build('not a url', true), { code: 'invalid_request' });
  build('https://manager.example', false)();
});

test('a manager that is down, fails, or answers nonsense is an error with its name', async (context) => {
  const manager = await started(context);
  const client = clientOf(context, manager.url);
  await client.version(signal);
  manager.faults.status = 502;
  await refused(client.call({ method: 'GET', path: '/services' }, signal), 'upstream_error', /^lab answered 502$/);
  manager.faults.status = null;
  manager.faults.rateLimit = 0;
  const limited = await refused(
    client.call({ method: 'GET', path: '/services' }, signal),
    'rate_limited',
    /rate limit/,
  );
  assert.equal(limited.facts.retryAfterMs, 2000);
  manager.faults.down = true;
  await refused(
    client.call({ method: 'GET', path: '/services' }, signal),
    'peer_unreachable',
    /^lab cannot be reached/,
  );
  manager.faults.down = false;
  manager.faults.delayMs = 300;
  const late = client.call({ method: 'GET', path: '/services', timeoutMs: 50 }, signal);
  await refused(late, 'peer_unreachable', /gave no answer within 0.05 s/);
});
