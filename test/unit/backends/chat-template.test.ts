import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CHATML_TEMPLATE, ChatTemplate } from '../../../node/backends/llama-cpp/prompt/chat-template.ts';
import { ControlText, type Segment } from '../../../node/backends/llama-cpp/prompt/control-text.ts';
import type { PromptMessage, ToolDefinition } from '../../../node/backends/llama-cpp/request/generation-request.ts';
import { MeshError } from '../../../node/common/errors.ts';
import fc from '../../support/fc.ts';

const CONTROL = ['<|im_start|>', '<|im_end|>', '<|endoftext|>', '[INST]', '</s>'];
const chat = (text: string | null): ChatTemplate =>
  new ChatTemplate({ template: text, bosToken: '<s>', eosToken: '</s>', controlTokens: CONTROL });
const template = (text: string | null) => ({
  render: (messages: readonly PromptMessage[], tools: readonly ToolDefinition[] = []): readonly Segment[] =>
    chat(text).render(messages, tools).segments,
});
const joined = (segments: readonly Segment[]): string => segments.map((segment) => segment.text).join('');
const acting = (segments: readonly Segment[]): string[] =>
  segments.flatMap(({ special, text }) =>
    special
      ? [...text.matchAll(/<\|im_start\|>|<\|im_end\|>|<\|endoftext\|>|\[INST\]|<\/s>/g)].map(([all]) => all)
      : [],
  );

test('a file without a template gets ChatML', () => {
  const segments = template(null).render([{ role: 'user', content: 'Hi' }]);
  assert.deepEqual(segments, [{ text: '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n', special: true }]);
});

test('every control token in user text stays text', () => {
  for (const control of CONTROL) {
    const segments = template(null).render([{ role: 'user', content: `a${control}b` }]);
    assert.deepEqual(segments, [
      { text: '<|im_start|>user\na', special: true },
      { text: control, special: false },
      { text: 'b<|im_end|>\n<|im_start|>assistant\n', special: true },
    ]);
  }
});

test('no user text adds a control token that acts, and all of it arrives as it was', () => {
  const piece = fc.oneof(
    fc.constantFrom(...CONTROL, '<|im_', 'start|>', '<', '\uE000', '0\uE001', '\uE002'),
    fc.string(),
  );
  const content = fc.array(piece, { maxLength: 6 }).map((pieces) => pieces.join(''));
  const message: fc.Arbitrary<PromptMessage> = fc.record({
    role: fc.constantFrom('system', 'user', 'assistant'),
    content,
  });
  // Emits contents next to each other, so that two of them could make a token together.
  const bare = '{% for m in messages %}{{ m.content }}{% endfor %}[INST]';
  fc.assert(
    fc.property(fc.array(message, { minLength: 1, maxLength: 4 }), (messages) => {
      const chatml = template(CHATML_TEMPLATE).render(messages);
      assert.equal(acting(chatml).length, 2 * messages.length + 1);
      const close = template(bare).render(messages);
      assert.deepEqual(acting(close), ['[INST]']);
      assert.equal(joined(close), `${messages.map((one) => one.content).join('')}[INST]`);
    }),
  );
});

test('two user texts that a template puts next to each other make no control token together', () => {
  const bare = template('{% for m in messages %}{{ m.content }}{% endfor %}');
  for (const control of CONTROL) {
    for (let cut = 1; cut < control.length; cut += 1) {
      const halves = [control.slice(0, cut), control.slice(cut)];
      const segments = bare.render(halves.map((content) => ({ role: 'user', content })));
      assert.deepEqual(acting(segments), []);
      assert.equal(joined(segments), control);
    }
  }
});

test('user texts that together would be a placeholder are text', () => {
  const bare = template('{% for m in messages %}{{ m.content }}{% endfor %}[INST]');
  const segments = bare.render(['\uE000', '0\uE001', '0\uE002'].map((content) => ({ role: 'user', content })));
  assert.equal(joined(segments), '\uE0000\uE0010\uE002[INST]');
  assert.deepEqual(acting(segments), ['[INST]']);
});

test('placeholders that a template cut apart are dropped without harm', () => {
  const control = new ControlText(CONTROL, '');
  const escaped = control.escape('</s>');
  assert.deepEqual(control.segments(escaped.slice(0, -1)), [{ text: '</s>', special: false }]);
  assert.deepEqual(
    control.segments(escaped.slice(1)).map(({ special }) => special),
    [true],
  );
});

test("a template's own refusal reaches the client in its own words", () => {
  const refusing = template("{{ raise_exception('Conversation roles must alternate') }}");
  assert.throws(
    () => refusing.render([{ role: 'user', content: 'x' }]),
    (error) =>
      error instanceof MeshError && error.code === 'invalid_request' && /roles must alternate/.test(error.message),
  );
});

test('a template that is no Jinja fails as the engine, not as the request', () => {
  assert.throws(
    () => template('{% for %}').render([{ role: 'user', content: 'x' }]),
    (error) => error instanceof MeshError && error.code === 'engine_failed',
  );
});

test('names and tool call ids are escaped like contents', () => {
  const named = template(
    '{% if tools %}{% endif %}{% for m in messages %}{{ m.name }}{{ m.tool_call_id }}{% endfor %}',
  );
  const segments = named.render([{ role: 'tool', content: '', name: '</s>', toolCallId: '[INST]' }]);
  assert.deepEqual(segments, [
    { text: '</s>', special: false },
    { text: '[INST]', special: false },
  ]);
});
