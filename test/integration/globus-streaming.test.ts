/** Answers that the function at a Globus Compute endpoint pushes back while they are made. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, beforeEach, test } from 'node:test';
import { CallbackInbox } from '../../node/api/resource-server/callback-inbox.ts';
import { failureOf } from '../../node/backends/globus-compute/task-report.ts';
import { systemClock } from '../../node/common/clock.ts';
import { type FirstFunctionOptions, firstFunction } from '../support/globus-stand-in-functions.ts';
import { ask, chat, collect, completion, textOf } from '../support/globus-stand-in-requests.ts';
import { FUNCTION, SLUG, StandInSite } from '../support/globus-stand-in-site.ts';
import { json, refusal, streamed } from '../support/openai-server.ts';

const SECRET = 'a-secret-of-the-cluster';
const STREAM = { stream: true, stream_options: { include_usage: true } };

let site: StandInSite;
let inbox: CallbackInbox;
let routes: Server;

before(async () => {
  routes = createServer((request, response) => {
    void (async () => {
      const pieces: Buffer[] = [];
      for await (const piece of request) pieces.push(piece as Buffer);
      const body = JSON.parse(Buffer.concat(pieces).toString()) as { task_id: string; data?: string; error?: string };
      const token = request.headers['x-stream-task-token'];
      const push = { taskId: body.task_id, token: typeof token === 'string' ? token : null };
      const isKnown = inbox.knows(String(request.headers['x-internal-secret']));
      const end = (): string => inbox.end(push, body.error === undefined ? null : failureOf(body.error, 'it'));
      const outcome = isKnown
        ? request.url?.includes('/data/')
          ? inbox.data(push, body.data ?? '')
          : end()
        : 'refused';
      response.writeHead(outcome === 'taken' ? 200 : 401).end();
    })();
  }).listen(0, '127.0.0.1');
  await once(routes, 'listening');
  const publicUrl = `http://127.0.0.1:${(routes.address() as AddressInfo).port}`;
  inbox = new CallbackInbox({ clock: systemClock }, { publicUrl, secret: SECRET });
  site = await StandInSite.start({ callbacks: inbox });
  await site.until((sites) => sites.stateOf(SLUG).state === 'running');
});

beforeEach(() => {
  site.server.reply = streamed(['Once', ' upon', ' a', ' time', ' 👋']);
  runs({ batch: 2 });
});

after(async () => {
  await site.stop();
  routes.close();
  routes.closeAllConnections();
});

/** The function as it is registered now. */
function runs(options: FirstFunctionOptions): void {
  site.globus.functions.set(FUNCTION, firstFunction({ streamingSecret: SECRET, ...options }));
}

test('an answer comes in the pieces in which it is pushed', async () => {
  const events = await collect(ask(site, chat(STREAM)));
  const chunks = events.filter(({ type }) => type === 'chunk');
  assert.equal(textOf(events), 'Once upon a time 👋');
  assert.equal(chunks.length, 6);
  const end = events.at(-1);
  assert.ok(end?.type === 'end');
  assert.deepEqual(end.usage, { promptTokens: 7, completionTokens: 5, cachedTokens: 3 });
  const asked = JSON.parse(site.server.inferences.at(-1)?.body ?? '') as object;
  assert.deepEqual(Object.keys(asked).sort(), ['messages', 'model', 'stream', 'stream_options']);
  assert.equal(inbox.size, 0, 'its task is closed');
});

test('a request that wants no stream is answered whole', async () => {
  site.server.reply = json(200, completion('whole'));
  assert.equal(textOf(await collect(ask(site))), 'whole');
});

test('pieces that are lost on the way back make the answer an error, not a shorter answer', async () => {
  runs({ batch: 2, lost: [1] });
  await assert.rejects(collect(ask(site, chat(STREAM))), {
    code: 'upstream_error',
    message: /2 pieces of the answer were lost on the way back/,
  });
});

test('a refusal of the model server is told by its status, also when it comes back as a push', async () => {
  site.server.reply = refusal(400, { message: 'temperature must be at least 0', code: 400 });
  await assert.rejects(collect(ask(site, chat(STREAM))), { code: 'invalid_request', message: /temperature/ });
});

test('a function that knows nothing of pushing is answered from its result', async () => {
  site.globus.functions.set(FUNCTION, async () => JSON.stringify({ ...completion('whole'), response_time: 1 }));
  assert.equal(textOf(await collect(ask(site, chat(STREAM)))), 'whole');
});

test('a function that is refused by the routes ends in an error', async () => {
  runs({ streamingSecret: 'another' });
  await assert.rejects(collect(ask(site, chat(STREAM))), { code: 'upstream_error' });
});

test('a function that dies after its first pieces ends the answer with an error', async () => {
  const push = firstFunction({ streamingSecret: SECRET, batch: 1, lost: [3, 4, 5, 6, 7] });
  site.server.reply = (response, asked) => {
    void streamed(['Once', ' upon'])(response, asked);
  };
  site.globus.functions.set(FUNCTION, async (args) => {
    await push(args).catch(() => {});
    throw new Error('WorkerLost: the job ran out of time');
  });
  const events: string[] = [];
  await assert.rejects(
    async () => {
      for await (const event of ask(site, chat(STREAM))) if (event.type === 'chunk') events.push(event.text);
    },
    { code: 'upstream_error' },
  );
});

test('whoever leaves a streamed answer closes its task', async () => {
  for await (const event of ask(site, chat(STREAM))) if (event.type === 'chunk') break;
  assert.equal(inbox.size, 0);
});
