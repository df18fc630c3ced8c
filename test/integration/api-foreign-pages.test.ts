/** What pages of other sites may not do with this node: upload, begin or cancel batches, use a public name of it. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { CallbackInbox } from '../../node/api/resource-server/callback-inbox.ts';
import { systemClock } from '../../node/common/clock.ts';
import { Federation } from '../../node/routing/federation.ts';
import { FirstParts } from '../support/first-parts.ts';
import { idleBatches } from '../support/idle-batches.ts';
import { type RawAnswer, rawRequest } from '../support/raw-http.ts';
import { type ScriptedFacade, startFacade } from '../support/scripted-facade.ts';

const ALLOWED = 'https://chat.example';
const PUBLIC_HOST = 'node.example:8443';
const LINE = JSON.stringify({ custom_id: 'a', method: 'POST', url: '/v1/chat/completions', body: { model: 'm' } });
const FORM = [
  ...['--x', 'Content-Disposition: form-data; name="purpose"', '', 'batch'],
  ...['--x', 'Content-Disposition: form-data; name="file"; filename="in.jsonl"', '', LINE, '--x--', ''],
].join('\r\n');

const batches = idleBatches();
const { service } = batches;
let open: ScriptedFacade;
let keyed: ScriptedFacade;

before(async () => {
  const inbox = new CallbackInbox({ clock: systemClock }, { publicUrl: `http://${PUBLIC_HOST}`, secret: null });
  const parts = new FirstParts({});
  const federation = new Federation({ fixtures: parts, states: parts, clock: systemClock });
  const views = { batches: service, streamCallbacks: inbox, federation };
  open = await startFacade({}, { allowOrigins: [ALLOWED] }, views);
  keyed = await startFacade({}, { apiKey: 'sk-right' }, views);
});
after(async () => {
  await Promise.all([open.stop(), keyed.stop()]);
  await batches.remove();
});

interface Sent {
  readonly method?: string;
  readonly host?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

function send({ port }: ScriptedFacade, path: string, { method = 'POST', host, headers, body = '' }: Sent) {
  const all = { Host: host ?? `127.0.0.1:${port}`, Connection: 'close', ...headers };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}`);
  const length = method === 'POST' ? [`Content-Length: ${Buffer.byteLength(body)}`] : [];
  return rawRequest(port, [`${method} ${path} HTTP/1.1`, ...lines, ...length, '', body].join('\r\n'));
}

const upload = (headers: Readonly<Record<string, string>> = {}): Promise<RawAnswer> =>
  send(open, '/v1/files', { headers: { 'Content-Type': 'multipart/form-data; boundary=x', ...headers }, body: FORM });

const FOREIGN: readonly Readonly<Record<string, string>>[] = [
  { Origin: 'https://evil.example' },
  { Origin: 'null' },
  { Origin: 'http://localhost:3000' },
  { 'Sec-Fetch-Site': 'cross-site' },
  // Browsers that send no Origin with a form.
  { 'Sec-Fetch-Site': 'same-site' },
  { Referer: 'https://evil.example/page' },
  { Referer: 'http://localhost:3000/' },
  { Referer: 'no url' },
];

describe('a page of another site', () => {
  test('uploads nothing by a form, which a browser sends without asking', async () => {
    for (const headers of FOREIGN) {
      assert.equal((await upload(headers)).status, 403, JSON.stringify(headers));
    }
    assert.deepEqual(service.listFiles({ limit: 10 }), []);
  });

  test('begins no batch: what is no JSON is refused, and JSON is asked for first', async () => {
    const body = JSON.stringify({ input_file_id: 'x', endpoint: '/v1/chat/completions', completion_window: '24h' });
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x']) {
      assert.equal((await send(open, '/v1/batches', { headers: { 'Content-Type': type }, body })).status, 415, type);
    }
    const asked = { 'Access-Control-Request-Method': 'POST', 'Access-Control-Request-Headers': 'content-type' };
    const preflight = { method: 'OPTIONS', headers: { Origin: 'https://evil.example', ...asked } };
    assert.equal((await send(open, '/v1/batches', preflight)).status, 403);
  });

  test('cancels and deletes nothing', async () => {
    for (const headers of FOREIGN) {
      const cancelled = await send(open, '/v1/batches/batch_x/cancel', { headers });
      assert.equal(cancelled.status, 403, JSON.stringify(headers));
    }
    const asked = { Origin: 'https://evil.example', 'Access-Control-Request-Method': 'DELETE' };
    assert.equal((await send(open, '/v1/files/file-x', { method: 'OPTIONS', headers: asked })).status, 403);
    const done = await send(open, '/v1/files/file-x', {
      method: 'DELETE',
      headers: { Origin: 'https://evil.example' },
    });
    assert.equal(done.status, 403);
  });
});

test('programs, own pages and allowed ones upload, cancel and delete', async () => {
  const own = `http://127.0.0.1:${open.port}`;
  const friends: readonly Readonly<Record<string, string>>[] = [
    {},
    { Origin: own, 'Sec-Fetch-Site': 'same-origin', Referer: `${own}/` },
    { Origin: ALLOWED, 'Sec-Fetch-Site': 'cross-site', Referer: `${ALLOWED}/` },
    { Referer: `${ALLOWED}/chat` },
  ];
  for (const headers of friends) {
    const answer = await upload(headers);
    assert.equal(answer.status, 200, `${JSON.stringify(headers)}: ${answer.body}`);
    const { id } = JSON.parse(answer.body) as { id: string };
    assert.equal((await send(open, '/v1/batches/batch_x/cancel', { headers })).status, 404);
    assert.equal((await send(open, `/v1/files/${id}`, { method: 'DELETE', headers })).status, 200);
  }
  const asked = { Origin: ALLOWED, 'Access-Control-Request-Method': 'DELETE' };
  const preflight = await send(open, '/v1/files/file-x', { method: 'OPTIONS', headers: asked });
  assert.equal(preflight.status, 204);
  assert.match(preflight.headers.get('access-control-allow-methods') ?? '', /\bDELETE\b/);
});

test('what was uploaded comes back as a download that no browser runs', async () => {
  const { id } = JSON.parse((await upload()).body) as { id: string };
  const { headers } = await send(open, `/v1/files/${id}/content`, { method: 'GET' });
  assert.equal(headers.get('x-content-type-options'), 'nosniff');
  assert.equal(headers.get('content-type'), 'application/octet-stream');
  assert.match(headers.get('content-disposition') ?? '', /^attachment;/);
});

test('a compressed upload is refused, not kept as it came', async () => {
  assert.equal((await upload({ 'Content-Encoding': 'gzip' })).status, 415);
});

test('the name that remote functions push to opens the routes without a key, and all only where a key is asked for', async () => {
  const by = (facade: ScriptedFacade, path: string, headers = {}): Promise<number> =>
    send(facade, path, { method: 'GET', host: PUBLIC_HOST, headers }).then(({ status }) => status);
  assert.equal(await by(open, '/resource_server/health'), 200);
  assert.equal(await by(open, '/v1/models'), 403);
  assert.equal(await by(open, '/resource_server/list-endpoints'), 403);
  assert.equal(await by(open, '/nowhere'), 403);
  const push = { 'Content-Type': 'application/json' };
  const body = JSON.stringify({ task_id: 'x', data: 'x' });
  const pushed = await send(open, '/resource_server/api/streaming/data', { host: PUBLIC_HOST, headers: push, body });
  assert.equal(pushed.status, 404, 'there is no such task');
  assert.equal(await by(keyed, '/v1/models'), 401);
  assert.equal(await by(keyed, '/v1/models', { Authorization: 'Bearer sk-right' }), 200);
});
