/**
 * What editors and chat windows send, replayed as their sources and documentation show it, and read as strictly as they
 * read it; and curl itself. They are not run here.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import OpenAI from 'openai';
import { COUNT, TOOLS } from '../support/client-questions.ts';
import { DEMO, EMBED, type MatrixNodes, PLACES, type Place, startMatrixNodes } from '../support/matrix-nodes.ts';

const run = promisify(execFile);
const MESSAGES = [{ role: 'user', content: COUNT }] as const;

let nodes: MatrixNodes;

before(async () => {
  nodes = await startMatrixNodes();
});
after(() => nodes?.stop());

const post = (place: Place, path: string, body: object, init: RequestInit = {}): Promise<Response> =>
  fetch(`${nodes.urls[place]}/v1${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: 'Bearer none' },
    body: JSON.stringify({ model: DEMO, ...body }),
    ...init,
  });

/** The chunks of a stream, each read from a line that begins with exactly `data: `, as Zed's reader demands. */
async function strictChunks(response: Response): Promise<Record<string, unknown>[]> {
  assert.equal(response.status, 200);
  const lines = (await response.text()).split('\n').filter((line) => line !== '' && !line.startsWith(':'));
  for (const line of lines) assert.ok(line.startsWith('data: '), line);
  assert.equal(lines.pop(), 'data: [DONE]');
  return lines.map((line) => JSON.parse(line.slice('data: '.length)) as Record<string, unknown>);
}

for (const place of PLACES) {
  describe(`replayed, ${place}`, () => {
    it('curl, as the README has it', async (context) => {
      const installed = await run('curl', ['--version']).catch(() => null);
      if (installed === null) return context.skip('curl is not installed');
      const url = `${nodes.urls[place]}/v1/chat/completions`;
      const body = JSON.stringify({ model: DEMO, messages: MESSAGES, max_tokens: 8 });
      const { stdout } = await run('curl', ['-sS', url, '-H', 'content-type: application/json', '-d', body]);
      const { choices } = JSON.parse(stdout) as OpenAI.ChatCompletion;
      assert.ok((choices[0]?.message.content ?? '').length > 0);
    });

    it('Open WebUI: models first, with a key, then a chat and its helpers at once, then embeddings', async () => {
      const headers = { authorization: 'Bearer none', 'x-openwebui-user-name': 'Hugo' };
      const models = await fetch(`${nodes.urls[place]}/v1/models`, { headers });
      const { data } = (await models.json()) as { data: { id: string }[] };
      assert.ok(data.some(({ id }) => id === DEMO));
      const chat = post(place, '/chat/completions', { messages: MESSAGES, stream: true, max_tokens: 12 });
      const helpers = ['Suggest a title.', 'Suggest tags.', 'Suggest a question.'].map((content) =>
        post(place, '/chat/completions', { messages: [{ role: 'user', content }], stream: false, max_tokens: 12 }),
      );
      assert.ok((await strictChunks(await chat)).length > 0);
      for (const helper of await Promise.all(helpers)) {
        assert.equal(helper.status, 200);
        await helper.arrayBuffer();
      }
      const embedded = await post(place, '/embeddings', { model: EMBED, input: ['an owl'] });
      assert.equal(embedded.status, 200);
      await embedded.arrayBuffer();
    });

    it('Continue: legacy completions for what is typed, most of them cancelled', async () => {
      const body = { prompt: 'Tell me', stream: true, max_tokens: 64, temperature: 0.01, stop: ['\n\n', '/src/'] };
      for (let typed = 0; typed < 8; typed += 1) {
        const leaving = new AbortController();
        const answer = post(place, '/completions', body, { signal: leaving.signal });
        if (typed % 2 === 0) await answer;
        leaving.abort();
        await answer.then((response) => response.text()).catch(() => undefined);
      }
      const chunks = await strictChunks(await post(place, '/completions', body));
      assert.ok(chunks.length > 1);
      // Text in between is given by models that are made for it, and refused by name by the others.
      const between = await post(place, '/completions', { ...body, suffix: ' The end.' });
      const text = await between.text();
      if (between.status !== 200) assert.ok(between.status === 400 && text.includes('"param":"suffix"'), text);
    });

    it('Cline: always streams with usage, names no tool that it has not, and reads the first choice', async () => {
      const client = new OpenAI({ baseURL: `${nodes.urls[place]}/v1/`, apiKey: 'none', maxRetries: 0 });
      const stream = await client.chat.completions.create({
        model: DEMO,
        messages: [{ role: 'system', content: 'You help.' }, ...MESSAGES],
        temperature: 0,
        max_tokens: 24,
        stream: true,
        stream_options: { include_usage: true },
      });
      let text = '';
      let usage = 0;
      for await (const chunk of stream) {
        text += chunk.choices[0]?.delta.content ?? '';
        if (chunk.usage) usage += chunk.usage.completion_tokens;
      }
      assert.ok(text.length > 0);
      assert.ok(usage > 0 && usage <= 24, 'told once');
    });

    it('Zed: tools, and every chunk has all that its reader demands', async () => {
      const body = { messages: MESSAGES, stream: true, max_tokens: 80, tools: TOOLS, parallel_tool_calls: false };
      for (const tool_choice of ['auto', 'required']) {
        for (const chunk of await strictChunks(await post(place, '/chat/completions', { ...body, tool_choice }))) {
          for (const field of ['id', 'object', 'model']) assert.equal(typeof chunk[field], 'string');
          assert.equal(typeof chunk['created'], 'number');
          for (const { index, delta } of chunk['choices'] as { index: unknown; delta: unknown }[]) {
            assert.ok(typeof index === 'number' && typeof delta === 'object');
          }
        }
      }
    });
  });
}
