/** LangChain's models for OpenAI, against two real nodes. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type AIMessageChunk, HumanMessage, ToolMessage } from '@langchain/core/messages';
import { ChatOpenAI, OpenAI, OpenAIEmbeddings } from '@langchain/openai';
import { assertValid, COUNT, PERSON_SCHEMA, TOOLS, WEATHER_PARAMETERS } from '../support/client-questions.ts';
import { DEMO, EMBED, type MatrixNodes, PLACES, type Place, startMatrixNodes } from '../support/matrix-nodes.ts';
import { watchOutboundHosts } from '../support/outbound-hosts.ts';

let nodes: MatrixNodes;
const watch = watchOutboundHosts();

before(async () => {
  nodes = await startMatrixNodes();
});
after(async () => {
  watch.stop();
  await nodes?.stop();
});

const fields = (place: Place) => ({
  apiKey: 'none',
  configuration: { baseURL: `${nodes.urls[place]}/v1` },
  maxRetries: 0,
});

const chat = (place: Place, maxTokens = 24, model = DEMO): ChatOpenAI =>
  new ChatOpenAI({ ...fields(place), model, temperature: 0, maxTokens });

/** Its own type of the usage is lost on the way through its generics. */
function tokensOf(message: { readonly usage_metadata?: unknown } | undefined): number | undefined {
  return (message?.usage_metadata as { readonly total_tokens: number } | undefined)?.total_tokens;
}

for (const place of PLACES) {
  describe(`LangChain, ${place}`, () => {
    it('invokes and streams one answer, with usage that it asks for by itself', async () => {
      const whole = await chat(place).invoke(COUNT);
      assert.ok(whole.text.length > 0);
      let sum: AIMessageChunk | undefined;
      for await (const chunk of await chat(place).stream(COUNT)) sum = sum?.concat(chunk) ?? chunk;
      assert.equal(sum?.text, whole.text);
      assert.ok((tokensOf(whole) ?? 0) > 0);
      assert.equal(tokensOf(sum), tokensOf(whole));
    });

    it('calls bound tools, whole and streamed, and answers with their results', async () => {
      const bound = chat(place, 100).bindTools([TOOLS[0]], { tool_choice: 'required' });
      const question = new HumanMessage('What is the weather in Ulm?');
      const whole = await bound.invoke([question]);
      assert.ok((whole.tool_calls ?? []).length >= 1);
      for (const { name, args } of whole.tool_calls ?? []) {
        assert.equal(name, 'weather');
        assertValid(WEATHER_PARAMETERS, args);
      }
      let sum: AIMessageChunk | undefined;
      for await (const chunk of await bound.stream([question])) sum = sum?.concat(chunk) ?? chunk;
      assert.deepEqual(
        sum?.tool_calls?.map(({ name, args }) => [name, args]),
        whole.tool_calls?.map(({ name, args }) => [name, args]),
      );
      const results = (whole.tool_calls ?? []).map(
        ({ id }) => new ToolMessage({ content: '{"sky":"clear"}', tool_call_id: id ?? '' }),
      );
      assert.ok((await chat(place).invoke([question, whole, ...results])).text.length > 0);
    });

    it('calls the tool that is named', async () => {
      const bound = chat(place, 80).bindTools([...TOOLS], { tool_choice: 'clock' });
      const { tool_calls = [] } = await bound.invoke('Hi');
      assert.ok(tool_calls.length >= 1);
      for (const { name } of tool_calls) assert.equal(name, 'clock');
    });

    for (const method of ['jsonSchema', 'functionCalling'] as const) {
      it(`gives structured output by ${method}`, async () => {
        const structured = chat(place, 160).withStructuredOutput({ ...PERSON_SCHEMA }, { name: 'person', method });
        assertValid(PERSON_SCHEMA, await structured.invoke('Make up a person.'));
      });
    }

    it('embeds, and completes', async () => {
      const embeddings = new OpenAIEmbeddings({ ...fields(place), model: EMBED });
      const [first = []] = await embeddings.embedDocuments(['an owl', 'a fox']);
      assert.deepEqual(await embeddings.embedQuery('an owl'), first);
      const completion = new OpenAI({ ...fields(place), model: DEMO, temperature: 0, maxTokens: 8 });
      assert.ok((await completion.invoke('Tell me')).length > 0);
    });

    it('aborts, and the next request is answered', async () => {
      const leaving = new AbortController();
      await assert.rejects(async () => {
        const stream = await chat(place, 450).stream('Tell me a story.', { signal: leaving.signal });
        for await (const chunk of stream) if (chunk.text !== '') leaving.abort();
      });
      assert.ok((await chat(place).invoke(COUNT)).text.length > 0);
    });

    it('tells of errors with their status', async () => {
      await assert.rejects(chat(place, 24, 'nobody-has-it').invoke('Hi'), { status: 503, code: 'model_not_available' });
      await assert.rejects(chat(place, 0).invoke('Hi'), { status: 400, param: 'max_tokens' });
    });
  });
}

it('it speaks to nobody else', () => {
  assert.deepEqual([...watch.hosts], ['127.0.0.1']);
});
