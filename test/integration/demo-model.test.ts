import assert from 'node:assert/strict';
import { test } from 'node:test';
import { demoModelPath } from '../../node/backends/llama-cpp/demo/demo-model.ts';
import { callsOf } from '../../node/backends/llama-cpp/demo/training/checks.ts';
import { DemoRun, type Message } from '../../node/backends/llama-cpp/demo/training/demo-run.ts';

const user = (content: string): Message => ({ role: 'user', content });

function tool(name: string, properties: object): object {
  const parameters = { type: 'object', properties, required: Object.keys(properties) };
  return { type: 'function', function: { name, description: `The tool ${name}`, parameters } };
}

const TOOLS = [
  tool('get_weather', { city: { type: 'string' } }),
  tool('add', { a: { type: 'number' }, b: { type: 'number' } }),
];

test('the demo model can do what other tests and a first user rely on', async (t) => {
  const demo = await DemoRun.load(demoModelPath());
  t.after(() => demo.close());
  const answer = async (question: string): Promise<string> => (await demo.chat([user(question)])).text;

  await t.test('llama.cpp has nothing to warn of, and the context is 4096 tokens', () => {
    assert.deepEqual(demo.warnings, []);
    assert.equal(demo.contextTokens, 4096);
  });

  await t.test('it answers, and differently to each question', async () => {
    assert.equal(await answer('What is the capital of France?'), 'The capital of France is Paris.');
    assert.match(await answer('What is meshnode?'), /^Meshnode joins several computers into one mesh/);
    assert.match(await answer('Count to 9.'), /1, 2, 3, 4, 5, 6, 7, 8, 9/);
    assert.match(await answer('What is 3 plus 4?'), /7/);
  });

  await t.test('it calls a tool, and two at once', async () => {
    const call = async (question: string) => callsOf((await demo.chat([user(question)], TOOLS)).text);
    const weatherIn = (city: string) => ({ name: 'get_weather', arguments: { city } });
    assert.deepEqual(await call('What is the weather in Paris?'), [weatherIn('Paris')]);
    assert.deepEqual(await call('What is the weather in Paris and in Rome?'), [weatherIn('Paris'), weatherIn('Rome')]);
    assert.deepEqual(await call('Add 12 and 30.'), [{ name: 'add', arguments: { a: 12, b: 30 } }]);
  });

  await t.test("it uses a tool's result, and no tool where none is needed", async () => {
    const messages: Message[] = [
      user('What is the weather in Paris?'),
      { role: 'assistant', content: '', tool_calls: [{ name: 'get_weather', arguments: { city: 'Paris' } }] },
      { role: 'tool', content: '{"temperature": 21, "condition": "sunny"}' },
    ];
    const { text } = await demo.chat(messages, TOOLS);
    assert.match(text, /sunny.*21.*Paris/);
    assert.deepEqual(callsOf((await demo.chat([user('Hello!')], TOOLS)).text), null);
  });

  await t.test('it writes a JSON object', async () => {
    const text = await answer('Answer as JSON with keys name and age: Anna is 12 years old.');
    assert.deepEqual(JSON.parse(text), { name: 'Anna', age: 12 });
  });

  await t.test('it thinks when it is asked to, and only then', async () => {
    assert.match(await answer('What is the capital of France? /think'), /^<think>\n[^<]+\n<\/think>\n\nThe capital/);
    assert.doesNotMatch(await answer('What is the capital of France?'), /think/);
  });

  await t.test('it fills in the middle', async () => {
    assert.equal((await demo.fill('The capital of France is', '.')).text, ' Paris');
  });

  await t.test('a long story has 250 tokens and more, and ends', async () => {
    const { text, tokens } = await demo.chat([user('Tell me a long story about an owl named Hugo.')]);
    assert.ok(tokens >= 250 && tokens < 700, `${tokens} tokens`);
    assert.match(text, /^Once upon a time .* named Hugo\..*\.$/s);
  });

  await t.test('a question at the end of 3,000 tokens is answered', async () => {
    const turns = Array.from({ length: 96 }, (_, index): Message[] => [
      user(`Count to ${5 + (index % 9)}.`),
      { role: 'assistant', content: `${Array.from({ length: 5 + (index % 9) }, (_, n) => n + 1).join(', ')}.` },
    ]);
    const { text, promptTokens } = await demo.chat([...turns.flat(), user('What is the capital of Italy?')]);
    assert.ok(promptTokens > 3000 && promptTokens < 4000, `${promptTokens} tokens`);
    assert.equal(text, 'The capital of Italy is Rome.');
  });
});
