import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { encodeEcho, encodeGoodbye } from '../../../protocols/catalog/messages.ts';
import { encodeFrames, type OutgoingFrame } from '../../../protocols/framing.ts';
import { encodeChunk } from '../../../protocols/inference/chunk-message.ts';
import { encodeProgress } from '../../../protocols/inference/messages.ts';
import { encodeRequest } from '../../../protocols/inference/open-message.ts';

/** The hex examples of a specification: its indented blocks without their white space. */
function examples(protocol: string): string[] {
  const text = readFileSync(new URL(`../../../protocols/${protocol}/spec.md`, import.meta.url), 'utf8');
  const blocks = text.match(/(?:^ {4}[0-9a-f]+\n)+/gm) ?? [];
  return blocks.map((block) => block.replaceAll(/\s/g, ''));
}

const hex = (...frames: OutgoingFrame[]): string => Buffer.from(encodeFrames(frames)).toString('hex');

test('the examples of the inference specification are what is sent', () => {
  const request = {
    requestId: '0123456789abcdef0123456789abcdef',
    kind: 'chat',
    model: 'meshnode-demo',
    seed: 42,
    body: Buffer.from('{"a":1}'),
  } as const;
  const resume = {
    promptDigest: 'ab'.repeat(32),
    artifact: 'cd'.repeat(32),
    choices: [
      { tokens: [5, 65_536], finish: null, text: '' },
      { tokens: [], finish: 'stop', text: '' },
    ],
  } as const;
  assert.deepEqual(examples('inference'), [
    hex(encodeProgress({ state: 'queued', fraction: null })),
    hex(...encodeChunk({ type: 'chunk', choice: 0, index: 2, tokens: [1, 65535], text: 'hi' })),
    hex(
      ...encodeChunk({
        type: 'chunk',
        choice: 1,
        index: 0,
        tokens: [7],
        text: '',
        reasoning: 'hm',
        toolCalls: [{ index: 0, id: 'a', name: 'f', arguments: '{}' }],
        finish: 'tool_calls',
      }),
    ),
    hex(...encodeRequest(request, { hops: 1 })),
    hex(
      ...encodeRequest(
        { ...request, kind: 'completion', model: 'm', seed: 1, body: Buffer.from('{}'), resume },
        { hops: 1 },
      ),
    ),
  ]);
});

test('the examples of the catalog specification are what is sent', () => {
  assert.deepEqual(examples('catalog'), [hex(encodeEcho(7), encodeGoodbye())]);
});
