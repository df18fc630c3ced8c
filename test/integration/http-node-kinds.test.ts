/** What HTTP nodes are asked beside one text: several answers, tool calls, and results that are passed on as they came. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { OpenAiHttpBackend } from '../../node/backends/openai-http/openai-http.ts';
import { systemClock } from '../../node/common/clock.ts';
import { MeshError } from '../../node/common/errors.ts';
import type { InferenceEvent, InferenceKind, InferenceRequest } from '../../protocols/inference/events.ts';
import { DONE, json, OpenAiServer, type Reply, raw, refusal, sse } from '../support/openai-server.ts';

interface Bench {
  readonly server: OpenAiServer;
  ask(reply: Reply, request?: Partial<InferenceRequest>): Promise<InferenceEvent[]>;
}

async function bench(t: TestContext): Promise<Bench> {
  const server = await OpenAiServer.start();
  const backend = new OpenAiHttpBackend(
    { clock: systemClock, key: () => null },
    { fingerprint: 'api:box', name: 'box', url: server.url },
  );
  t.after(async () => {
    backend.close();
    await server.stop();
  });
  return {
    server,
    ask: async (reply, request = {}) => {
      server.reply = reply;
      const body = Buffer.from('{"model":"m","stream":true}');
      const whole: InferenceRequest = {
        requestId: '0'.repeat(32),
        kind: 'chat',
        model: 'm',
        seed: 1,
        body,
        ...request,
      };
      return await Array.fromAsync(backend.infer(whole, { signal: new AbortController().signal }));
    },
  };
}

const chunkOf = (index: number, delta: object, finish_reason: string | null = null): string =>
  sse({ choices: [{ index, delta, finish_reason }] });

test('several answers come each in its own choice, tool calls and thoughts in their own parts', async (t) => {
  const { ask } = await bench(t);
  const call = { index: 0, id: 'call_a', type: 'function', function: { name: 'f', arguments: '' } };
  const reply = raw([
    chunkOf(0, { role: 'assistant', reasoning_content: 'Hm' }),
    chunkOf(1, { content: 'Hi' }),
    chunkOf(0, { tool_calls: [call] }),
    chunkOf(0, { tool_calls: [{ index: 0, function: { arguments: '{}' } }] }),
    chunkOf(1, {}, 'stop'),
    chunkOf(0, {}, 'tool_calls'),
    DONE,
  ]);
  const events = await ask(reply, { choices: 2 });
  const plain = { type: 'chunk', choice: 0, index: 0, tokens: [], text: '' };
  assert.deepEqual(events.slice(1, -1), [
    { ...plain, reasoning: 'Hm' },
    { ...plain, choice: 1, text: 'Hi' },
    { ...plain, toolCalls: [{ index: 0, id: 'call_a', name: 'f', arguments: '' }] },
    { ...plain, toolCalls: [{ index: 0, arguments: '{}' }] },
    { ...plain, choice: 1, finish: 'stop' },
    { ...plain, finish: 'tool_calls' },
  ]);
  const end = events.at(-1);
  assert.deepEqual(end?.type === 'end' && end.finishReasons, ['tool_calls', 'stop']);
});

test('an answer that lacks one of its choices was cut', async (t) => {
  const { ask } = await bench(t);
  await assert.rejects(ask(raw([chunkOf(0, { content: 'Hi' }, 'stop'), DONE]), { choices: 2 }), {
    code: 'upstream_error',
  });
});

const PATHS: Readonly<Partial<Record<InferenceKind, string>>> = {
  embedding: '/v1/embeddings',
  rerank: '/v1/rerank',
  tokenize: '/tokenize',
  detokenize: '/detokenize',
};
for (const [kind, path] of Object.entries(PATHS) as [InferenceKind, string][]) {
  test(`the result of ${kind} is passed on byte for byte, with its counts`, async (t) => {
    const { server, ask } = await bench(t);
    const text = '{ "data":[1.50, "é"],\n "usage":{"prompt_tokens":8,"total_tokens":8} }';
    const body = Buffer.from('{"model":"m", "input":"x"}');
    const events = await ask(json(200, text), { kind, body });
    assert.deepEqual(
      events.map(({ type }) => type),
      ['accepted', 'result', 'end'],
    );
    const [, result, end] = events;
    assert.ok(result?.type === 'result' && end?.type === 'end');
    assert.equal(Buffer.from(result.body).toString(), text);
    assert.deepEqual(end.finishReasons, []);
    assert.equal(end.usage.promptTokens, 8);
    assert.equal(server.inferences[0]?.path, path);
    assert.equal(server.inferences[0]?.body, body.toString());
  });
}

test('a result that is none is an error of the server', async (t) => {
  const { ask } = await bench(t);
  const rows: readonly (readonly [Reply, string])[] = [
    [json(200, '{"data": ['), 'upstream_error'],
    [json(200, { error: { message: 'no', code: 429 } }), 'rate_limited'],
    [refusal(404, { message: 'x', code: 'model_not_found' }), 'model_not_loaded'],
    [(response) => void response.writeHead(200, { 'content-type': 'text/html' }).end('<p>'), 'upstream_error'],
  ];
  for (const [reply, code] of rows) await assert.rejects(ask(reply, { kind: 'embedding' }), { code });
});

test('the tokens of another engine are nothing that a server could go on with', async (t) => {
  const { server, ask } = await bench(t);
  const choices = [{ tokens: [1], finish: null, text: 'x' }];
  const resume = { promptDigest: 'ab'.repeat(32), artifact: 'cd'.repeat(32), choices };
  await assert.rejects(
    ask(raw([DONE]), { resume }),
    (error) => error instanceof MeshError && error.code === 'cannot_resume',
  );
  assert.equal(server.inferences.length, 0);
});
