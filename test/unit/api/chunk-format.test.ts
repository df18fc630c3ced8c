import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ChunkFormat, DONE_EVENT, errorEvent } from '../../../node/api/chunk-format.ts';
import { MeshError } from '../../../node/common/errors.ts';
import { eventData } from '../../support/event-stream.ts';
import fc from '../../support/fc.ts';
import { chunk, end } from '../../support/scripted-backend.ts';

const CHAT = { kind: 'chat', id: 'chatcmpl-1', created: 1_760_000_000, model: 'a "model"' } as const;
const COMPLETION = { ...CHAT, kind: 'completion', id: 'cmpl-1' } as const;

const NOT_RESUMED = { resumed: 0, nodes: [] };
const chatFormat = (usage = false): ChunkFormat => new ChunkFormat(CHAT, usage, NOT_RESUMED);

interface Chunk {
  readonly choices: readonly {
    readonly delta?: { readonly content?: string; readonly role?: string };
    readonly text?: string;
  }[];
}

const parsed = (stream: string): Chunk[] => eventData(stream).map((data) => JSON.parse(data) as Chunk);

describe('ChunkFormat', () => {
  it('prints the role once per choice, then text, then finish', () => {
    const format = chatFormat();
    const chunks = parsed(format.chunk(chunk('a')) + format.chunk(chunk('b')) + format.end(end(2)));
    const head = { id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1_760_000_000, model: 'a "model"' };
    const choice = (delta: object, finish_reason: string | null = null) => ({
      ...head,
      choices: [{ index: 0, delta, logprobs: null, finish_reason }],
    });
    assert.deepEqual(chunks, [
      choice({ role: 'assistant', content: '' }),
      choice({ content: 'a' }),
      choice({ content: 'b' }),
      choice({}, 'stop'),
    ]);
  });

  it('names the role even of an answer without text', () => {
    const chunks = parsed(chatFormat().end(end(0)));
    assert.deepEqual(chunks[0]?.choices[0]?.delta, { role: 'assistant', content: '' });
    assert.equal(chunks.length, 2);
  });

  it('prints usage in one last chunk without choices, and null before it, when asked', () => {
    const format = chatFormat(true);
    const chunks = parsed(format.chunk(chunk('a')) + format.end(end(1))) as (Chunk & { usage: unknown })[];
    assert.deepEqual(
      chunks.slice(0, -1).map((chunk) => chunk.usage),
      [null, null, null],
    );
    const last = chunks.at(-1);
    assert.deepEqual(last?.choices, []);
    assert.deepEqual(last?.usage, {
      prompt_tokens: 3,
      completion_tokens: 1,
      total_tokens: 4,
      prompt_tokens_details: { cached_tokens: 1 },
    });
  });

  it('prints completions as text', () => {
    const format = new ChunkFormat(COMPLETION, false, NOT_RESUMED);
    const chunks = parsed(format.chunk(chunk('a')) + format.end(end(1, 'length')));
    assert.deepEqual(
      chunks.map((chunk) => chunk.choices[0]),
      [
        { index: 0, text: 'a', logprobs: null, finish_reason: null },
        { index: 0, text: '', logprobs: null, finish_reason: 'length' },
      ],
    );
  });

  it('gives back exactly the text that went in, one event per chunk, whatever the text', () => {
    const nasty = fc.constantFrom(
      '\n\ndata: [DONE]\n\n',
      '\r',
      '\u2028',
      '\u2029',
      '\u0085',
      '"}',
      '\0',
      '\ud800',
      ': x',
      '😀',
    );
    const text = fc.array(fc.oneof(fc.string({ unit: 'binary' }), nasty)).map((parts) => parts.join(''));
    fc.assert(
      fc.property(fc.array(text, { minLength: 1 }), fc.boolean(), (all, usage) => {
        const texts = ['first', ...all.filter((each) => each !== '')];
        const format = chatFormat(usage);
        const printed = texts.map((each) => format.chunk(chunk(each))).join('');
        const contents = parsed(printed)
          .slice(1)
          .map((chunk) => chunk.choices[0]?.delta?.content);
        assert.deepEqual(contents, texts);
        assert.equal(/[\u0085\u2028\u2029\r]/.test(printed), false);
      }),
    );
  });
});

describe('errorEvent', () => {
  it('prints one event in the dialect of errors, whatever the message', () => {
    const printed = errorEvent(new MeshError('peer_lost', 'gone\n\ndata: [DONE]'));
    assert.deepEqual(
      eventData(printed).map((data) => JSON.parse(data) as unknown),
      [{ error: { message: 'gone\n\ndata: [DONE]', type: 'server_error', param: null, code: 'peer_lost' } }],
    );
    assert.equal(printed.includes(DONE_EVENT), false);
  });
});
