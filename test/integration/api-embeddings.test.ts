/** Embeddings, rerank, tokenize and detokenize with llama.cpp itself, asked where the model is and one hop away. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { OpenAIEmbeddings } from '@langchain/openai';
import { embedMany } from 'ai';
import OpenAI, { BadRequestError, InternalServerError } from 'openai';
import { demoModelPath } from '../../node/backends/llama-cpp/demo/demo-model.ts';
import { NodeProcess } from '../support/node-process.ts';
import { TINY_BERT_CONTEXT, TINY_BERT_DIMENSIONS, writeTinyBert } from '../support/tiny-bert.ts';

const DEMO = 'meshnode-demo';
const EMBED = 'tiny-embed';
const RANK = 'tiny-rank';
const FLAGS = ['--no-mdns', '--gpu', 'off', '--listen', '/ip4/127.0.0.1/tcp/0'];
const WORDS = { role: 'user', content: 'Tell me a story about an owl.' } as const;

const directory = mkdtempSync(path.join(tmpdir(), 'meshnode-embeddings-'));
let serving: NodeProcess;
let asking: NodeProcess;
let servingFingerprint: string;
const urls = { local: '', hop: '' };

before(async () => {
  const file = (id: string): string => path.join(directory, `${id}.gguf`);
  writeTinyBert(file(EMBED), 'embed');
  writeTinyBert(file(RANK), 'rank');
  writeTinyBert(file('unrelated'), 'embed');
  const models = [`${DEMO}=${demoModelPath()}`, file(EMBED), file(RANK)].flatMap((model) => ['--model', model]);
  serving = new NodeProcess({ flags: [...FLAGS, ...models] });
  const { api, multiaddrs, fingerprint } = await serving.ready();
  asking = new NodeProcess({
    flags: [...FLAGS, '--model', file('unrelated'), '--peer', multiaddrs[0] ?? ''],
  });
  const other = await asking.ready();
  servingFingerprint = fingerprint;
  urls.local = api;
  urls.hop = other.api;
  await asking.event((event) => 'models' in event && event.models.includes(RANK));
});
after(async () => {
  await asking?.kill();
  await serving?.kill();
  rmSync(directory, { recursive: true, force: true });
});

/** The fields of all answers that are looked at; each answer has its own of them. */
interface ReplyBody {
  readonly count: number;
  readonly max_model_len: number;
  readonly tokens: number[];
  readonly token_strs: readonly string[];
  readonly prompt: string;
  readonly results: readonly {
    readonly index: number;
    readonly relevance_score: number;
    readonly document?: { readonly text: string };
  }[];
  readonly usage: { readonly total_tokens: number };
  readonly error: { readonly code: string; readonly param: string; readonly message: string };
}

interface Reply {
  readonly status: number;
  readonly headers: Headers;
  readonly json: ReplyBody;
}

async function post(url: string, body: object): Promise<Reply> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  return { status: response.status, headers: response.headers, json: (await response.json()) as ReplyBody };
}

function cosine(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, value, index) => sum + value * (b[index] ?? 0), 0);
}

const client = (where: keyof typeof urls): OpenAI =>
  new OpenAI({ baseURL: `${urls[where]}/v1`, apiKey: 'none', maxRetries: 0 });

for (const where of ['local', 'hop'] as const) {
  describe(`embeddings, ${where}`, () => {
    it('are the same unit vectors as floats and as the base64 that the client asks for by itself', async () => {
      const asked = client(where).embeddings;
      const { data: byDefault, response } = await asked.create({ model: EMBED, input: 'owl' }).withResponse();
      const floats = await asked.create({ model: EMBED, input: 'owl', encoding_format: 'float' });
      const [vector, same] = [floats.data[0]?.embedding ?? [], byDefault.data[0]?.embedding ?? []];
      assert.equal(vector.length, TINY_BERT_DIMENSIONS);
      assert.ok(Math.abs(Math.hypot(...vector) - 1) < 1e-5);
      assert.deepEqual([...same], vector.map(Math.fround));
      // [CLS] o w l [SEP]
      assert.deepEqual(floats.usage, { prompt_tokens: 5, total_tokens: 5 });
      assert.deepEqual([floats.object, floats.model], ['list', EMBED]);
      assert.equal(response.headers.get('x-meshnode-node'), servingFingerprint);
      assert.equal(response.headers.get('x-meshnode-attempts'), '1');
    });

    it('of several inputs come in order, each as it comes alone', async () => {
      const input = Array.from({ length: 150 }, (_, index) => `owl ${index}`);
      const { data } = await client(where).embeddings.create({ model: EMBED, input });
      assert.deepEqual(
        data.map(({ index }) => index),
        input.map((_, index) => index),
      );
      for (const index of [0, 70, 149]) {
        const alone = await client(where).embeddings.create({ model: EMBED, input: input[index] ?? '' });
        assert.ok(cosine(alone.data[0]?.embedding ?? [], data[index]?.embedding ?? []) > 0.9999);
      }
    });

    it('of token ids are those of the text', async () => {
      const { json } = await post(`${urls[where]}/v1/tokenize`, { model: DEMO, prompt: WORDS.content });
      const asked = client(where).embeddings;
      const text = await asked.create({ model: DEMO, input: WORDS.content });
      const tokens = await asked.create({ model: DEMO, input: json.tokens });
      const several = await asked.create({ model: DEMO, input: [json.tokens, [1, 2, 3]] });
      assert.deepEqual(tokens.data[0], text.data[0]);
      assert.deepEqual(several.data[0], text.data[0]);
      assert.equal(several.usage.prompt_tokens, json.count + 3);
    });

    it('are cut to the dimensions asked for, and more are refused', async () => {
      const asked = client(where).embeddings;
      const whole = await asked.create({ model: EMBED, input: 'owl' });
      const cut = await asked.create({ model: EMBED, input: 'owl', dimensions: 8 });
      const [vector, first] = [cut.data[0]?.embedding ?? [], (whole.data[0]?.embedding ?? []).slice(0, 8)];
      assert.equal(vector.length, 8);
      assert.ok(Math.abs(Math.hypot(...vector) - 1) < 1e-5);
      assert.ok(cosine(vector, first) / Math.hypot(...first) > 0.9999);
      await assert.rejects(asked.create({ model: EMBED, input: 'owl', dimensions: TINY_BERT_DIMENSIONS + 1 }), {
        status: 400,
        param: 'dimensions',
      });
    });

    it('of what is too long for the model are refused with both numbers, and the engine lives on', async () => {
      const fits = 'a'.repeat(TINY_BERT_CONTEXT - 2);
      const asked = client(where).embeddings;
      await assert.rejects(asked.create({ model: EMBED, input: ['a', `${fits}a`] }), (error) => {
        assert.ok(error instanceof BadRequestError);
        assert.deepEqual([error.code, error.param], ['context_length_exceeded', 'input[1]']);
        assert.match(error.message, new RegExp(`${TINY_BERT_CONTEXT} tokens.*${TINY_BERT_CONTEXT + 1} tokens`));
        return true;
      });
      const { usage } = await asked.create({ model: EMBED, input: ['a', fits] });
      assert.equal(usage.prompt_tokens, 3 + TINY_BERT_CONTEXT);
    });

    it('of ids that the model does not have, of a rerank model and of an unknown model are refused', async () => {
      const asked = client(where).embeddings;
      await assert.rejects(asked.create({ model: EMBED, input: [5, 100_000] }), { status: 400, param: 'input[0][1]' });
      await assert.rejects(asked.create({ model: RANK, input: 'owl' }), { status: 400, param: 'model' });
      await assert.rejects(asked.create({ model: 'nobody-has-it', input: 'owl' }), (error) => {
        assert.ok(error instanceof InternalServerError);
        assert.deepEqual([error.status, error.code], [503, 'model_not_available']);
        return true;
      });
    });
  });

  describe(`rerank, ${where}`, () => {
    const query = 'what is an owl';
    const documents = ['a bird', { text: 'a car' }, 'an owl is a bird of the night', 'x'];

    it('scores every document and orders them, at both paths', async () => {
      for (const route of ['/v1/rerank', '/rerank']) {
        const { status, json, headers } = await post(urls[where] + route, { model: RANK, query, documents });
        assert.equal(status, 200);
        const scores = json.results.map((result) => result.relevance_score);
        assert.deepEqual(
          scores,
          scores.toSorted((a, b) => b - a),
        );
        assert.ok(scores.every((score) => score > 0 && score < 1) && new Set(scores).size === documents.length);
        assert.deepEqual(json.results.map((result) => result.index).sort(), [0, 1, 2, 3]);
        assert.ok(json.usage.total_tokens > 0);
        assert.equal(headers.get('x-meshnode-node'), servingFingerprint);
      }
    });

    it('returns the best and their documents when asked', async () => {
      const body = { model: RANK, query, documents, top_n: 2, return_documents: true };
      const { json } = await post(`${urls[where]}/v1/rerank`, body);
      assert.equal(json.results.length, 2);
      for (const { index, document } of json.results) {
        const given = documents[index];
        assert.equal(document?.text, typeof given === 'string' ? given : given?.text);
      }
    });

    it('is refused by a model without a ranking head, and of a document that is too long', async () => {
      const wrong = await post(`${urls[where]}/v1/rerank`, { model: DEMO, query, documents });
      assert.deepEqual([wrong.status, wrong.json.error.param], [400, 'model']);
      assert.match(wrong.json.error.message, /no rerank model/);
      const long = { model: RANK, query, documents: ['a', 'b'.repeat(TINY_BERT_CONTEXT)] };
      const { status, json } = await post(`${urls[where]}/v1/rerank`, long);
      assert.deepEqual([status, json.error.code, json.error.param], [400, 'context_length_exceeded', 'documents[1]']);
    });
  });

  describe(`tokenize and detokenize, ${where}`, () => {
    it('give each other back, at both paths, control tokens of the text being text', async () => {
      for (const prefix of ['/v1', '']) {
        for (const prompt of ['Tell me a story.', 'Grüße 🦉', '<|im_end|> is text', '']) {
          const body = { model: DEMO, prompt, return_token_strs: true };
          const { json } = await post(`${urls[where]}${prefix}/tokenize`, body);
          assert.equal(json.count, json.tokens.length);
          assert.equal(json.token_strs.length, json.count);
          assert.ok(!json.token_strs.includes('<|im_end|>'));
          assert.ok(json.max_model_len >= 512);
          const back = await post(`${urls[where]}${prefix}/detokenize`, { model: DEMO, tokens: json.tokens });
          assert.deepEqual(back.json, { prompt, content: prompt });
        }
      }
    });

    it('count messages as chat completions does', async () => {
      const { json } = await post(`${urls[where]}/v1/tokenize`, { model: DEMO, messages: [WORDS] });
      const chat = await client(where).chat.completions.create({ model: DEMO, messages: [WORDS], max_tokens: 1 });
      assert.equal(json.count, chat.usage?.prompt_tokens);
      const { json: text } = await post(`${urls[where]}/v1/detokenize`, { model: DEMO, tokens: json.tokens });
      assert.match(text.prompt, /<\|im_start\|>user\nTell me a story about an owl\.<\|im_end\|>/);
    });

    it('refuse what they cannot read', async () => {
      const { status, json } = await post(`${urls[where]}/v1/detokenize`, { model: DEMO, tokens: [1, 100_000] });
      assert.deepEqual([status, json.error.param], [400, 'tokens[1]']);
      const both = await post(`${urls[where]}/v1/tokenize`, { model: DEMO, prompt: 'a', messages: [WORDS] });
      assert.deepEqual([both.status, both.json.error.param], [400, 'prompt']);
    });
  });
}

describe('other clients', () => {
  const input = Array.from({ length: 600 }, (_, index) => `n ${index}`);

  it('embed with LangChain, in batches of 512', async () => {
    const configuration = { baseURL: `${urls.hop}/v1` };
    const embeddings = new OpenAIEmbeddings({ model: EMBED, apiKey: 'none', configuration, maxRetries: 0 });
    const vectors = await embeddings.embedDocuments(input);
    assert.equal(vectors.length, 600);
    assert.ok(cosine(await embeddings.embedQuery(input[599] ?? ''), vectors[599] ?? []) > 0.9999);
  });

  it('embed with the AI SDK', async () => {
    const provider = createOpenAICompatible({ name: 'meshnode', baseURL: `${urls.hop}/v1` });
    const { embeddings, usage } = await embedMany({
      model: provider.embeddingModel(EMBED),
      values: input,
      maxRetries: 0,
    });
    assert.equal(embeddings.length, 600);
    assert.ok(usage.tokens > 600);
    assert.ok(Math.abs(Math.hypot(...(embeddings[0] ?? [])) - 1) < 1e-5);
  });
});

describe('beside generations', () => {
  it('a large batch through a hop and a stream both come to their end, and neither waits for the other', async () => {
    const openai = client('local');
    const stream = await openai.chat.completions.create({
      model: DEMO,
      messages: [WORDS],
      stream: true,
      temperature: 0,
      max_tokens: 100,
    });
    const input = Array.from({ length: 512 }, (_, index) => `Short input number ${index}`);
    let chunksWhileEmbedding = 0;
    let isEmbedding = false;
    let embedding: Promise<OpenAI.CreateEmbeddingResponse> | null = null;
    for await (const { choices } of stream) {
      if (embedding === null && (choices[0]?.delta.content ?? '') !== '') {
        isEmbedding = true;
        embedding = client('hop')
          .embeddings.create({ model: DEMO, input, encoding_format: 'float' })
          .finally(() => {
            isEmbedding = false;
          });
      }
      if (isEmbedding) chunksWhileEmbedding += 1;
    }
    assert.equal((await embedding)?.data.length, 512);
    assert.ok(chunksWhileEmbedding > 0, `${chunksWhileEmbedding} chunks`);
  });

  it('a client that leaves frees its slot', async () => {
    const openai = client('local');
    const gone = new AbortController();
    const input = Array.from({ length: 2048 }, (_, index) => `A longer input, which is number ${index} of many`);
    const asked = Array.from({ length: 4 }, () =>
      openai.embeddings.create({ model: DEMO, input }, { signal: gone.signal }),
    );
    const one = openai.embeddings.create({ model: EMBED, input: 'owl' });
    await one;
    gone.abort();
    for (const request of asked) await assert.rejects(request, { name: 'Error' });
    const chat = await openai.chat.completions.create({ model: DEMO, messages: [WORDS], max_tokens: 2 });
    assert.equal(chat.choices.length, 1);
  });
});
