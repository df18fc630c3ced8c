/** Names that stand for models, over real HTTP servers; and answers of which the client reads nothing for a while. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { type TestContext, test } from 'node:test';
import type { LocalBackend } from '../../node/backends/backend.ts';
import { sleep, systemClock } from '../../node/common/clock.ts';
import { MeshError } from '../../node/common/errors.ts';
import { type Rig, type RigOptions, startRig } from '../support/misbehaving-rig.ts';
import { LARGE_PIECE, LARGE_PIECES, TOKENS, WHOLE_ANSWER } from '../support/misbehaving-server.ts';
import { catalogEntry } from '../support/scripted-facade.ts';

async function rigOf(context: TestContext, options: RigOptions): Promise<Rig> {
  const rig = await startRig(options);
  context.after(() => rig.stop());
  return rig;
}

const modelsOf = (rig: Rig): readonly string[] => rig.servers.flatMap(({ calls }) => calls.map(({ model }) => model));

test('a name is answered by the first of its models that can, which the answer and its record name', async (context) => {
  const rig = await rigOf(context, { aliases: { 'gpt-4o-mini': ['nowhere', 's12', 'ok'] } });
  for (const stream of [true, false]) {
    const { status, model, text, headers } = await rig.ask('gpt-4o-mini', { stream });
    assert.deepEqual([status, model, text], [200, 'ok', WHOLE_ANSWER]);
    const record = rig.requestLog.get(String(headers['x-request-id']));
    assert.deepEqual([record?.model, record?.chain, record?.outcome], ['gpt-4o-mini', ['nowhere', 's12', 'ok'], 'ok']);
    assert.deepEqual(
      record?.attempts.map(({ model: asked, outcome }) => [asked, outcome]),
      [
        ['s12', 'context_length_exceeded'],
        ['ok', 'ok'],
      ],
    );
  }
  assert.deepEqual(modelsOf(rig), ['s12', 'ok', 's12', 'ok']);
  const [first, second] = rig.servers[0]?.calls ?? [];
  assert.equal(second?.body, first?.body.replace('"s12"', '"ok"'), 'only the name is another');
});

test('a name is listed as its first model that is there, and not while none is', async (context) => {
  const rig = await rigOf(context, { aliases: { mini: ['nowhere', 'ok'], none: ['nowhere'], ok: ['ok', 's03'] } });
  const { data } = (await (await fetch(`${rig.url}/v1/models`)).json()) as { data: { id: string; owned_by: string }[] };
  const named = data.filter(({ id }) => ['mini', 'none', 'ok'].includes(id));
  assert.deepEqual(
    named.map(({ id, owned_by }) => [id, owned_by]),
    [
      ['ok', 'remote'],
      ['mini', 'remote'],
    ],
  );
  const one = (await (await fetch(`${rig.url}/v1/models/mini`)).json()) as { meshnode: { alias_of: string[] } };
  assert.deepEqual(one.meshnode.alias_of, ['nowhere', 'ok', 's03'], 'names among them are resolved');
});

test('no substitute lies beyond the boundary of a request', async (context) => {
  const rig = await rigOf(context, { aliases: { mini: ['s04', 'ok'] } });
  const { status, error } = await rig.ask('mini', { boundary: 'private-cluster' });
  assert.deepEqual([status, error?.code], [503, 'model_not_available']);
  assert.match(error?.message ?? '', /mini \(s04, ok\).*within the boundary 'private-cluster'/);
  assert.deepEqual(modelsOf(rig), []);
});

test('when nobody answers, the client is told of the failure, not of a substitute that is nowhere', async (context) => {
  const rig = await rigOf(context, { aliases: { mini: ['s03', 'nowhere'], bad: ['s04', 'nowhere'] } });
  const { status, error } = await rig.ask('bad');
  assert.deepEqual([status, error?.code], [503, 'upstream_error']);
});

test('an answer that the engine here began in tokens goes on elsewhere from its text', async (context) => {
  const words = WHOLE_ANSWER.match(/\S+ /g)?.slice(0, 20) ?? [];
  let asked = 0;
  const local: LocalBackend = {
    id: 'here',
    kind: 'engine',
    catalog: () => [catalogEntry('mine')],
    onCatalogChange: () => () => {},
    async *infer() {
      asked += 1;
      if (asked > 1) throw new MeshError('engine_failed', 'the engine crashed');
      yield { type: 'accepted', node: 'here', promptTokens: 5, promptDigest: 'd', artifact: 'a' };
      for (const [index, text] of words.entries()) yield { type: 'chunk', choice: 0, index, tokens: [index], text };
      throw new MeshError('engine_failed', 'the engine crashed');
    },
  };
  const rig = await rigOf(context, { aliases: { mini: ['mine', 'ok'] }, local, tellsPrefill: true });
  const { text, model, done, usage } = await rig.ask('mini');
  assert.deepEqual([text, model, done], [WHOLE_ANSWER, 'mine', true]);
  assert.deepEqual([usage?.completion_tokens, rig.servers[0]?.calls[0]?.isPrefilled], [TOKENS, true]);
});

test('a server is read as fast as the client reads, whatever the length of the answer', async (context) => {
  const rig = await rigOf(context, {});
  const [server] = rig.servers;
  assert.ok(server);
  const body = JSON.stringify({ model: 'large', stream: true, messages: [{ role: 'user', content: 'x' }] });
  const headers = { 'content-type': 'application/json', 'content-length': body.length };
  const request = http.request(`${rig.url}/v1/chat/completions`, { method: 'POST', headers, agent: false });
  request.end(body);
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  // Nothing is read: what the server can write comes to a halt.
  let written = -1;
  while (written !== server.writtenBytes) {
    written = server.writtenBytes;
    await sleep(systemClock, 300);
  }
  assert.ok(written < 32 * 1024 * 1024, `${written} bytes are somewhere between server and client`);
  let [characters, tail] = [0, ''];
  for await (const piece of response.setEncoding('latin1')) {
    const part = piece as string;
    for (let at = part.indexOf('#'); at !== -1; at = part.indexOf('#', at)) {
      const from = at;
      while (part[at] === '#') at += 1;
      characters += at - from;
    }
    tail = (tail + part).slice(-32);
  }
  assert.ok(tail.endsWith('data: [DONE]\n\n'));
  assert.equal(characters, LARGE_PIECES * LARGE_PIECE);
});
