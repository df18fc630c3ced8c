/** The AI SDK with its provider for OpenAI-compatible servers, against two real nodes. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import {
  APICallError,
  embed,
  embedMany,
  generateObject,
  generateText,
  isStepCount,
  jsonSchema,
  Output,
  streamObject,
  streamText,
  tool,
} from 'ai';
import { assertValid, COUNT, PERSON_SCHEMA, type Person, WEATHER_PARAMETERS } from '../support/client-questions.ts';
import { DEMO, EMBED, type MatrixNodes, PLACES, type Place, startMatrixNodes } from '../support/matrix-nodes.ts';
import { watchOutboundHosts } from '../support/outbound-hosts.ts';

const GREEDY = { temperature: 0, maxOutputTokens: 24, maxRetries: 0 } as const;
const PERSON = jsonSchema<Person>({
  ...PERSON_SCHEMA,
  required: [...PERSON_SCHEMA.required],
  properties: { ...PERSON_SCHEMA.properties, pet: { enum: [...PERSON_SCHEMA.properties.pet.enum] } },
});

let nodes: MatrixNodes;
const watch = watchOutboundHosts();
const warnings = globalThis.AI_SDK_LOG_WARNINGS;

before(async () => {
  // It prints that generateObject has a newer form.
  globalThis.AI_SDK_LOG_WARNINGS = false;
  nodes = await startMatrixNodes();
});
after(async () => {
  globalThis.AI_SDK_LOG_WARNINGS = warnings;
  watch.stop();
  await nodes?.stop();
});

const provider = (place: Place) =>
  createOpenAICompatible({
    name: 'meshnode',
    baseURL: `${nodes.urls[place]}/v1`,
    includeUsage: true,
    supportsStructuredOutputs: true,
  });
const model = (place: Place, id = DEMO) => provider(place)(id);

for (const place of PLACES) {
  describe(`the AI SDK, ${place}`, () => {
    it('generates and streams one answer, with usage', async () => {
      const whole = await generateText({ ...GREEDY, model: model(place), prompt: COUNT });
      assert.ok(whole.text.length > 0);
      assert.ok((whole.usage.inputTokens ?? 0) > 0 && (whole.usage.outputTokens ?? 0) > 0);
      const stream = streamText({ ...GREEDY, model: model(place), prompt: COUNT });
      let text = '';
      for await (const part of stream.textStream) text += part;
      assert.deepEqual([text, await stream.finishReason], [whole.text, whole.finishReason]);
      assert.equal((await stream.usage).totalTokens, whole.usage.totalTokens);
    });

    for (const how of ['generate', 'stream'] as const) {
      it(`calls a tool, runs it and answers with its result (${how})`, async () => {
        const asked: unknown[] = [];
        const request = {
          ...GREEDY,
          maxOutputTokens: 80,
          model: model(place),
          prompt: 'What is the weather in Ulm?',
          tools: {
            weather: tool({
              inputSchema: jsonSchema<{ city: string }>({
                ...WEATHER_PARAMETERS,
                required: ['city'],
                properties: { city: { type: 'string', enum: [...WEATHER_PARAMETERS.properties.city.enum] } },
              }),
              execute: async (input) => {
                asked.push(input);
                return { sky: 'clear' };
              },
            }),
          },
          toolChoice: 'required',
          stopWhen: isStepCount(2),
          prepareStep: ({ stepNumber }: { stepNumber: number }) =>
            stepNumber === 0 ? {} : { toolChoice: 'none' as const },
        } as const;
        const result = how === 'generate' ? await generateText(request) : streamText(request);
        const steps = await result.steps;
        assert.equal(steps.length, 2);
        assert.equal(steps[0]?.finishReason, 'tool-calls');
        assert.ok(asked.length >= 1 && asked.length === steps[0].toolCalls.length);
        for (const input of asked) assertValid(WEATHER_PARAMETERS, input);
        assert.ok((await result.text).length > 0);
      });
    }

    it('calls the tool that is named', async () => {
      const inputSchema = jsonSchema({ type: 'object', properties: {}, additionalProperties: false });
      const { toolCalls } = await generateText({
        ...GREEDY,
        maxOutputTokens: 80,
        model: model(place),
        prompt: 'Hi',
        tools: { clock: tool({ inputSchema }), stop: tool({ inputSchema }) },
        toolChoice: { type: 'tool', toolName: 'stop' },
      });
      assert.ok(toolCalls.length >= 1);
      for (const call of toolCalls) assert.equal(call.toolName, 'stop');
    });

    it('generates and streams an object of a schema', async () => {
      const request = { ...GREEDY, maxOutputTokens: 100, model: model(place), prompt: 'Make up a person.' };
      const { object } = await generateObject({ ...request, schema: PERSON });
      assertValid(PERSON_SCHEMA, object);
      const stream = streamObject({ ...request, schema: PERSON });
      let last: unknown;
      for await (const part of stream.partialObjectStream) last = part;
      assert.deepEqual([last, await stream.object], [object, object]);
      const { output } = await generateText({ ...request, output: Output.object({ schema: PERSON }) });
      assert.deepEqual(output, object);
    });

    it('embeds one and many', async () => {
      const asked = provider(place).embeddingModel(EMBED);
      const { embedding } = await embed({ model: asked, value: 'an owl', maxRetries: 0 });
      const { embeddings, usage } = await embedMany({ model: asked, values: ['a fox', 'an owl'], maxRetries: 0 });
      assert.equal(embeddings.length, 2);
      assert.ok(usage.tokens > 0);
      const cosine = embedding.reduce((sum, value, index) => sum + value * (embeddings[1]?.[index] ?? 0), 0);
      assert.ok(cosine > 0.9999);
    });

    it('aborts, and the next request is answered', async () => {
      const leaving = new AbortController();
      const request = { model: model(place), temperature: 1.5, maxOutputTokens: 450, maxRetries: 0 };
      const stream = streamText({ ...request, prompt: 'Tell me a story.', abortSignal: leaving.signal });
      let isAborted = false;
      for await (const part of stream.fullStream) {
        if (part.type === 'text-delta') leaving.abort();
        isAborted ||= part.type === 'abort';
      }
      assert.ok(isAborted);
      assert.ok((await generateText({ ...GREEDY, model: model(place), prompt: COUNT })).text.length > 0);
    });

    it('tells of errors with their status and message', async () => {
      const rejects = (id: string, fields: object, status: number, message: RegExp): Promise<void> =>
        assert.rejects(generateText({ ...GREEDY, ...fields, model: model(place, id), prompt: 'Hi' }), (error) => {
          assert.ok(APICallError.isInstance(error));
          assert.equal(error.statusCode, status);
          assert.match(error.message, message);
          return true;
        });
      await rejects('nobody-has-it', {}, 503, /nobody-has-it/);
      await rejects(DEMO, { temperature: 7 }, 400, /'temperature'/);
    });
  });
}

it('it speaks to nobody else', () => {
  assert.deepEqual([...watch.hosts], ['127.0.0.1']);
});
