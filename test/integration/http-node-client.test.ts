import assert from 'node:assert/strict';
import dns from 'node:dns';
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { HttpClient } from '../../node/backends/openai-http/http-client.ts';
import { systemClock } from '../../node/common/clock.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { OpenAiServer, opened, silent } from '../support/openai-server.ts';

const LIMITS = { connectMs: 3000, headersMs: 120_000, silenceMs: 60_000 };
const ASK = { method: 'POST', path: '/v1/completions', headers: {}, body: Buffer.from('{}') } as const;

async function bench(t: TestContext): Promise<{ server: OpenAiServer; clock: ManualClock; client: HttpClient }> {
  const server = await OpenAiServer.start();
  const clock = new ManualClock();
  const client = new HttpClient({ clock }, { name: 'box', url: server.url });
  t.after(async () => {
    client.destroy();
    await server.stop();
  });
  return { server, clock, client };
}

test('any byte is a sign of life, comments too; silence past the bound ends the answer', async (t) => {
  const { server, clock, client } = await bench(t);
  let response: ServerResponse | undefined;
  server.reply = (given, asked) => {
    response = given;
    return opened([])(given, asked);
  };
  const answer = await client.call(ASK, LIMITS, new AbortController().signal);
  const pieces = answer.body[Symbol.asyncIterator]();
  for (let i = 0; i < 5; i += 1) {
    const next = pieces.next();
    clock.advance(LIMITS.silenceMs - 1);
    response?.write(': loading\n\n');
    assert.equal(Buffer.from((await next).value ?? []).toString(), ': loading\n\n');
    // Nobody waits for the server now, so this time does not count.
    clock.advance(LIMITS.silenceMs * 2);
  }
  const closed = server.nextClosed();
  const next = pieces.next();
  clock.advance(LIMITS.silenceMs);
  await assert.rejects(next, { code: 'peer_unreachable', message: 'box fell silent within 60 s' });
  await closed;
  answer.close();
});

test('headers that do not come are waited for 120 s', async (t) => {
  const { server, clock, client } = await bench(t);
  const asked = new Promise<void>((resolve) => {
    server.reply = (response, request) => {
      resolve();
      return silent(response, request);
    };
  });
  const closed = server.nextClosed();
  const calling = client.call(ASK, LIMITS, new AbortController().signal);
  calling.catch(() => {});
  await asked;
  clock.advance(LIMITS.headersMs - 1);
  clock.advance(1);
  await assert.rejects(calling, { code: 'peer_unreachable', message: 'box gave no answer within 120 s' });
  await closed;
});

test('a handshake that does not end is given up after 3 s', async (t) => {
  const clock = new ManualClock();
  const mute = createServer().listen(0, '127.0.0.1');
  await once(mute, 'listening');
  const url = `https://127.0.0.1:${(mute.address() as AddressInfo).port}`;
  const client = new HttpClient({ clock }, { name: 'box', url });
  t.after(() => {
    client.destroy();
    mute.close();
  });
  const connected = once(mute, 'connection');
  const calling = client.call(ASK, LIMITS, new AbortController().signal);
  calling.catch(() => {});
  await connected;
  clock.advance(LIMITS.connectMs);
  await assert.rejects(calling, { code: 'peer_unreachable', message: 'box did not take the connection within 3 s' });
});

test('N-5 a name that points to a metadata address is not connected to', async (t) => {
  t.mock.method(dns, 'lookup', (_name: string, _options: object, callback: (...given: unknown[]) => void) =>
    callback(null, [{ address: '169.254.169.254', family: 4 }]),
  );
  const client = new HttpClient({ clock: systemClock }, { name: 'box', url: 'http://harmless.example' });
  t.after(() => client.destroy());
  await assert.rejects(client.call(ASK, LIMITS, new AbortController().signal), {
    code: 'peer_unreachable',
    message: /box: its name points to a link-local or metadata address/,
  });
});

test('a signal that has aborted already sends nothing', async (t) => {
  const { server, client } = await bench(t);
  await assert.rejects(client.call(ASK, LIMITS, AbortSignal.abort()), { code: 'client_closed' });
  assert.equal(server.asked.length, 0);
});
