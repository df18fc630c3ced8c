/** Answers of OpenAI-compatible servers that break off: they go on by prefill where the server is known to do that. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { HttpNodes } from '../../node/backends/openai-http/http-nodes.ts';
import { systemClock } from '../../node/common/clock.ts';
import { MeshError } from '../../node/common/errors.ts';
import { silentLogger } from '../../node/common/logger.ts';
import { Metrics } from '../../node/common/metrics.ts';
import { Breakers } from '../../node/routing/breakers.ts';
import { MeshDispatcher } from '../../node/routing/mesh-dispatcher.ts';
import { Router } from '../../node/routing/router.ts';
import { RoutingStats } from '../../node/routing/routing-stats.ts';
import type { InferenceEvent, InferenceKind, InferenceRequest } from '../../protocols/inference/events.ts';
import { httpRegistry } from '../support/http-registry.ts';
import { NO_ENGINE, NO_PEERS } from '../support/lone-routing.ts';
import {
  type Asked,
  DONE,
  delta,
  json,
  OpenAiServer,
  opened,
  type Reply,
  sse,
  streamed,
} from '../support/openai-server.ts';
import { until } from '../support/wire-mesh.ts';

const WORDS = ['One', ' two,', ' three', ' and', ' ', 'four', '.'];
const GOLDEN = WORDS.join('');

/** What a server tells of itself. */
const ABOUT: Readonly<Record<string, Reply>> = {
  vllm: (response, asked) =>
    (asked.path === '/version'
      ? json(200, { version: '0.11.0' })
      : asked.path === '/props'
        ? json(404, {})
        : json(200, { object: 'list', data: [{ id: 'm', object: 'model', owned_by: 'vllm' }] }))(response, asked),
  'llama-server': (response, asked) =>
    (asked.path === '/props'
      ? json(200, { default_generation_settings: {}, build_info: 'b1' })
      : json(200, { object: 'list', data: [{ id: 'm', object: 'model', owned_by: 'llamacpp' }] }))(response, asked),
  // Has a version as well, and would begin a new answer.
  unknown: (response, asked) =>
    (asked.path === '/version'
      ? json(200, { version: '1' })
      : json(200, { object: 'list', data: [{ id: 'm', object: 'model', owned_by: 'me' }] }))(response, asked),
};

interface Body {
  readonly messages?: readonly { readonly role: string; readonly content: string }[];
  readonly prompt?: string;
  readonly continue_final_message?: boolean;
  readonly add_generation_prompt?: boolean;
  readonly max_tokens?: number;
}

/** Goes on after what it is given, as strictly as the real one; dies once after `dieAfter` pieces. */
function strict(kind: string, dieAfter: number | null = null): Reply {
  let dies = dieAfter;
  return async (response, asked) => {
    const body = JSON.parse(asked.body) as Body;
    const begun = begunText(kind, body);
    if (begun === null || !GOLDEN.startsWith(begun))
      return json(400, { error: { message: 'bad continuation' } })(response, asked);
    // A template drops what is white at the end.
    const rest = GOLDEN.slice(begun.trimEnd().length);
    const pieces = rest.match(/\s*\S+|\s+/g) ?? [];
    const isChat = body.prompt === undefined;
    const part = (text: string): string =>
      isChat ? delta(text) : sse({ choices: [{ index: 0, text, finish_reason: null }] });
    if (dies !== null) {
      await opened(WORDS.slice(0, dies).map(part))(response, asked);
      dies = null;
      setTimeout(() => response.socket?.resetAndDestroy(), 50);
      return;
    }
    const usage = { prompt_tokens: 7, completion_tokens: pieces.length };
    const last = isChat ? delta(null, 'stop') : sse({ choices: [{ index: 0, text: '', finish_reason: 'stop' }] });
    await opened([...pieces.map(part), last, sse({ choices: [], usage }), DONE])(response, asked);
    response.end();
  };
}

/** What the request says was begun; null when it is not said as the server wants it. */
function begunText(kind: string, body: Body): string | null {
  if (body.prompt !== undefined) return body.prompt.startsWith('Count: ') ? body.prompt.slice(7) : null;
  const last = body.messages?.at(-1);
  if (last?.role !== 'assistant') return body.continue_final_message === true ? null : '';
  if (kind !== 'vllm') return last.content;
  return body.continue_final_message === true && body.add_generation_prompt === false ? last.content : null;
}

async function meshOf(context: TestContext, kinds: Readonly<Record<string, string>>, dieAfter = 3) {
  const servers = new Map<string, OpenAiServer>();
  for (const [name, kind] of Object.entries(kinds)) {
    const server = await OpenAiServer.start();
    context.after(() => server.stop());
    server.models = ABOUT[kind] ?? ABOUT['unknown'] ?? server.models;
    server.reply = strict(kind, name === 'a' ? dieAfter : null);
    servers.set(name, server);
  }
  const nodes = [...servers].map(([name, { url }]) => ({ name, url, priority: name === 'a' ? 1 : 0 }));
  const registry = httpRegistry(nodes);
  const httpNodes = new HttpNodes({ registry, clock: systemClock, logger: silentLogger });
  httpNodes.start();
  context.after(() => httpNodes.stop());
  const stats = new RoutingStats();
  const metrics = new Metrics();
  const router = new Router({
    local: NO_ENGINE,
    ...NO_PEERS,
    stats,
    gateways: httpNodes,
    settings: {
      loadBalancing: () => ({ enabled: true, strategy: 'priority', failoverEnabled: true, midStream: true }),
      remote: () => ({ priority: 0, boundary: 'public' }),
    },
  });
  const breakers = new Breakers({ clock: systemClock });
  const dispatcher = new MeshDispatcher({ router, breakers, stats, metrics, clock: systemClock, logger: silentLogger });
  await until(() => httpNodes.holders('m').length === nodes.length);
  // What they can is asked after the model list.
  await until(() => [...servers.values()].every(({ asked }) => asked.some(({ path }) => path === '/props')));
  const run = async (kind: InferenceKind = 'chat', stream = true) => {
    const body =
      kind === 'chat'
        ? { model: 'm', stream, max_tokens: 20, messages: [{ role: 'user', content: 'count' }] }
        : { model: 'm', stream, max_tokens: 20, prompt: 'Count: ' };
    const request: InferenceRequest = {
      requestId: 'b'.repeat(32),
      kind,
      model: 'm',
      body: new TextEncoder().encode(JSON.stringify(body)),
      seed: 1,
      choices: 1,
    };
    const dispatch = dispatcher.dispatch(request, { signal: AbortSignal.timeout(20_000), stream });
    const events: InferenceEvent[] = [];
    let code: string | null = null;
    try {
      for await (const event of dispatch.events) events.push(event);
    } catch (error) {
      assert.ok(error instanceof MeshError, String(error));
      code = error.code;
    }
    const text = events.map((event) => (event.type === 'chunk' ? event.text : '')).join('');
    return { text, code, end: events.at(-1), resumed: dispatch.resumed, nodes: dispatch.nodes };
  };
  const posted = (name: string): readonly Asked[] => servers.get(name)?.inferences ?? [];
  const able = (name: string): Promise<void> =>
    until(() => {
      const found = httpNodes.holders('m').find(({ backend }) => backend.id === `api:${name}`);
      const body = new TextEncoder().encode('{"messages":[{"role":"user","content":"x"}]}');
      return found?.continuesText?.({ kind: 'chat', body, requestId: '', model: 'm', seed: 1 }) === true;
    });
  return { run, posted, able, servers };
}

for (const kind of ['vllm', 'llama-server']) {
  for (const dieAfter of [1, 3, 5]) {
    test(`a chat that breaks off after ${dieAfter} pieces goes on at another ${kind} without a seam`, async (context) => {
      const { run, posted, able } = await meshOf(context, { a: kind, b: kind }, dieAfter);
      await able('b');
      const { text, code, end, resumed, nodes } = await run();
      assert.deepEqual([text, code, resumed, nodes], [GOLDEN, null, 1, ['api:a', 'api:b']]);
      assert.equal(end?.type === 'end' && end.usage.promptTokens, 7 - dieAfter, 'what was begun is no prompt');
      assert.equal((JSON.parse(posted('b')[0]?.body ?? '') as Body).max_tokens, 20 - dieAfter);
    });
  }
}

test('a completion goes on anywhere', async (context) => {
  const { run } = await meshOf(context, { a: 'unknown', b: 'unknown' });
  assert.deepEqual([(await run('completion')).text], [GOLDEN]);
});

test('the server itself goes on when it has come back and there is no other', async (context) => {
  const { run, posted, able } = await meshOf(context, { a: 'vllm' });
  await able('a');
  const { text, nodes } = await run();
  assert.deepEqual([text, nodes, posted('a').length], [GOLDEN, ['api:a', 'api:a'], 2]);
});

test('a server that is not known to continue answers anew, and goes on where its answer is the same so far', async (context) => {
  const { run, posted } = await meshOf(context, { a: 'unknown', b: 'unknown' });
  const { text, code, nodes, end } = await run();
  assert.deepEqual([text, code, nodes], [GOLDEN, null, ['api:a', 'api:b']]);
  assert.deepEqual(posted('b')[0]?.body, posted('a')[0]?.body, 'the request as it came');
  assert.equal(end?.type === 'end' && end.usage.promptTokens, 7, 'as its server counts');
});

test('nothing of another answer comes into one that was begun', async (context) => {
  const { run, posted, servers } = await meshOf(context, { a: 'unknown', b: 'unknown' });
  for (const server of servers.values()) {
    const first = server.reply;
    server.reply = (response, asked) =>
      server === servers.get('a') && server.inferences.length === 1
        ? first(response, asked)
        : streamed(['One', ' two', ' frogs'])(response, asked);
  }
  const { text, code } = await run();
  assert.deepEqual([text, code], [WORDS.slice(0, 3).join(''), 'peer_lost']);
  assert.equal(posted('b').length, 1);
});

test('a server that refuses the beginning of its own answer is asked for all of it', async (context) => {
  const { run, posted, servers, able } = await meshOf(context, { a: 'vllm', b: 'vllm' });
  await able('b');
  const b = servers.get('b');
  assert.ok(b);
  b.reply = (response, asked) =>
    asked.body.includes('"assistant"')
      ? json(400, { error: { message: 'no prefill here' } })(response, asked)
      : streamed(WORDS)(response, asked);
  const { text, code } = await run();
  assert.deepEqual([text, code, posted('b').length], [GOLDEN, null, 2]);
});
