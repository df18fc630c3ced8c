/** The official `openai` client against two real nodes: where the model is, and one hop away. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import OpenAI, {
  APIConnectionError,
  APIError,
  APIUserAbortError,
  BadRequestError,
  InternalServerError,
  NotFoundError,
} from 'openai';
import {
  assertValid,
  COUNT,
  MANY_PROMPTS,
  PERSON_SCHEMA,
  TOOLS,
  WEATHER_PARAMETERS,
} from '../support/client-questions.ts';
import { DEMO, EMBED, type MatrixNodes, PLACES, type Place, startMatrixNodes } from '../support/matrix-nodes.ts';
import { watchOutboundHosts } from '../support/outbound-hosts.ts';

type Create = OpenAI.ChatCompletionCreateParamsNonStreaming;
type Message = OpenAI.ChatCompletionMessage;

const user = (content: string): OpenAI.ChatCompletionMessageParam[] => [{ role: 'user', content }];
const GREEDY: Pick<Create, 'model' | 'temperature' | 'max_tokens'> = { model: DEMO, temperature: 0, max_tokens: 24 };
const CALLING: Create = {
  ...GREEDY,
  max_tokens: 120,
  messages: user('What is the weather in Ulm?'),
  tools: [...TOOLS],
};
const PERSON: OpenAI.ResponseFormatJSONSchema = {
  type: 'json_schema',
  json_schema: { name: 'person', schema: PERSON_SCHEMA, strict: true },
};
/** Long enough that only who leaves makes it end soon. */
const LONG: Create = { model: DEMO, messages: user('Tell me a story.'), temperature: 1.5, max_tokens: 450, n: 4 };

let nodes: MatrixNodes;
const watch = watchOutboundHosts();

before(async () => {
  nodes = await startMatrixNodes();
});
after(async () => {
  watch.stop();
  await nodes?.stop();
});

const client = (place: Place): OpenAI =>
  new OpenAI({ baseURL: `${nodes.urls[place]}/v1`, apiKey: 'none', maxRetries: 0, timeout: 60_000 });

const whole = async (place: Place, body: Create): Promise<OpenAI.ChatCompletion> =>
  await client(place).chat.completions.create(body);

/** What the client itself puts together from a stream. */
const streamed = async (place: Place, body: Create): Promise<OpenAI.ChatCompletion> =>
  await client(place)
    .chat.completions.stream({ ...body, stream: true })
    .finalChatCompletion();

const ASKING = { whole, streamed };

function only({ choices }: OpenAI.ChatCompletion): { message: Message; finish: string } {
  const [choice] = choices;
  assert.ok(choice !== undefined && choices.length === 1);
  return { message: choice.message, finish: choice.finish_reason };
}

/** Name and arguments of each call, the arguments being valid for the tool that it names. */
function calls({ tool_calls = [] }: Message): { id: string; name: string; parsed: unknown }[] {
  return tool_calls.map((call) => {
    assert.ok(call.type === 'function');
    const tool = TOOLS.find(({ function: { name } }) => name === call.function.name);
    assert.ok(tool !== undefined, `no tool is called ${call.function.name}`);
    const parsed: unknown = JSON.parse(call.function.arguments);
    return { id: call.id, name: call.function.name, parsed };
  });
}

/** Waits until the node that works has nothing to do. */
async function becomesIdle(): Promise<void> {
  const until = Date.now() + 20_000;
  while ((await nodes.load()) > 0) assert.ok(Date.now() < until, 'the node still works for who has left');
}

for (const place of PLACES) {
  describe(`openai, ${place}`, () => {
    it('chats: whole and streamed are one answer, with usage', async () => {
      const body = { ...GREEDY, messages: user(COUNT) };
      const { data, response } = await client(place).chat.completions.create(body).withResponse();
      assert.equal(response.headers.get('x-meshnode-node'), nodes.serving);
      const { message, finish } = only(data);
      assert.ok((message.content ?? '').length > 0);
      const stream = await client(place).chat.completions.create({
        ...body,
        stream: true,
        stream_options: { include_usage: true },
      });
      let text = '';
      let reason: string | null = null;
      let usage: OpenAI.CompletionUsage | null = null;
      for await (const chunk of stream) {
        text += chunk.choices[0]?.delta.content ?? '';
        reason = chunk.choices[0]?.finish_reason ?? reason;
        usage = chunk.usage ?? usage;
      }
      assert.deepEqual([text, reason], [message.content, finish]);
      assert.equal(usage?.total_tokens, data.usage?.total_tokens);
      assert.ok((usage?.completion_tokens ?? 0) > 0);
    });

    for (const [how, ask] of Object.entries(ASKING)) {
      it(`calls tools when it must, ${how}`, async () => {
        const { message, finish } = only(await ask(place, { ...CALLING, tool_choice: 'required' }));
        assert.equal(finish, 'tool_calls');
        const made = calls(message);
        assert.ok(made.length >= 1);
        assert.equal(new Set(made.map(({ id }) => id)).size, made.length);
        for (const { name, parsed } of made) {
          assertValid(TOOLS.find((tool) => tool.function.name === name)?.function.parameters ?? {}, parsed);
        }
      });

      it(`calls the tool that is named, and one alone where parallel calls are off, ${how}`, async () => {
        const tool_choice = { type: 'function', function: { name: 'weather' } } as const;
        const body = { ...CALLING, tool_choice, parallel_tool_calls: false };
        const made = calls(only(await ask(place, body)).message);
        assert.deepEqual(
          made.map(({ name }) => name),
          ['weather'],
        );
        assertValid(WEATHER_PARAMETERS, made[0]?.parsed);
      });

      it(`may call tools and calls none where it must not, ${how}`, async () => {
        const auto = only(await ask(place, { ...CALLING, tool_choice: 'auto' }));
        const made = calls(auto.message);
        assert.equal(made.length > 0, auto.finish === 'tool_calls');
        const none = only(await ask(place, { ...CALLING, tool_choice: 'none' }));
        assert.deepEqual(none.message.tool_calls ?? [], []);
        assert.notEqual(none.finish, 'tool_calls');
        assert.ok((none.message.content ?? '').length > 0);
      });

      it(`goes through a whole loop of a tool, ${how}`, async () => {
        const asked = { ...CALLING, tools: [TOOLS[0]] };
        const first = only(await ask(place, { ...asked, tool_choice: 'required' })).message;
        const results = calls(first).map(({ id }) => ({
          role: 'tool' as const,
          tool_call_id: id,
          content: '{"sky":"clear"}',
        }));
        const messages = [...CALLING.messages, first, ...results];
        const last = await ask(place, { ...asked, messages, tool_choice: 'none', max_tokens: 40 });
        assert.ok((only(last).message.content ?? '').length > 0);
        assert.notEqual(last.choices[0]?.finish_reason, 'tool_calls');
        if (ask === streamed) return;
        const without = await ask(place, { ...asked, tool_choice: 'none', max_tokens: 1 });
        const told = (last.usage?.prompt_tokens ?? 0) - (without.usage?.prompt_tokens ?? 0);
        assert.ok(told > 20, `call and result are ${told} tokens of the prompt`);
      });
    }

    it('parses structured output, whole and streamed', async () => {
      const body = { ...GREEDY, max_tokens: 120, messages: user('Make up a person.'), response_format: PERSON };
      const parsed = await client(place).chat.completions.parse(body);
      assertValid(PERSON_SCHEMA, JSON.parse(parsed.choices[0]?.message.content ?? ''));
      const content = only(await streamed(place, body)).message.content ?? '';
      assert.equal(content, parsed.choices[0]?.message.content);
    });

    it('embeds, in base64 by itself, and the vectors are those of floats', async () => {
      const asked = client(place).embeddings;
      const byDefault = await asked.create({ model: EMBED, input: ['an owl', 'a fox'] });
      const floats = await asked.create({ model: EMBED, input: ['an owl', 'a fox'], encoding_format: 'float' });
      assert.deepEqual(
        byDefault.data.map(({ embedding }) => [...embedding]),
        floats.data.map(({ embedding }) => embedding.map(Math.fround)),
      );
    });

    it('completes, whole and streamed', async () => {
      const body = { ...GREEDY, prompt: 'Tell me' };
      const answer = await client(place).completions.create(body);
      const stream = await client(place).completions.create({ ...body, stream: true });
      let text = '';
      for await (const chunk of stream) text += chunk.choices[0]?.text ?? '';
      assert.ok(text.length > 0);
      assert.equal(text, answer.choices[0]?.text);
    });

    it('lists and retrieves models', async () => {
      const ids: string[] = [];
      for await (const model of client(place).models.list()) ids.push(model.id);
      assert.ok(ids.includes(DEMO) && ids.includes(EMBED));
      assert.equal((await client(place).models.retrieve(DEMO)).id, DEMO);
      await assert.rejects(client(place).models.retrieve('nobody-has-it'), NotFoundError);
    });

    it('raises errors by their class, streamed or not', async () => {
      for (const stream of [false, true]) {
        const ask = (fields: object): Promise<unknown> =>
          client(place).chat.completions.create({ ...GREEDY, messages: user('Hi'), ...fields, stream });
        await assert.rejects(ask({ temperature: 7 }), (error) => {
          assert.ok(error instanceof BadRequestError);
          assert.equal(error.param, 'temperature');
          assert.ok(error.requestID);
          return true;
        });
        await assert.rejects(ask({ model: 'nobody-has-it' }), (error) => {
          assert.ok(error instanceof InternalServerError);
          assert.deepEqual([error.status, error.code], [503, 'model_not_available']);
          return true;
        });
        await assert.rejects(ask({ messages: user('far too long '.repeat(4000)) }), (error) => {
          assert.ok(error instanceof BadRequestError);
          assert.equal(error.code, 'context_length_exceeded');
          assert.match(error.message, /maximum context length is \d+ tokens.*resulted in (about )?\d+ tokens/);
          return true;
        });
      }
    });

    it('aborts mid-stream, and the node is idle soon', async () => {
      for (let i = 0; i < 3; i += 1) {
        const stream = await client(place).chat.completions.create({ ...LONG, stream: true });
        for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break;
        assert.ok(stream.controller.signal.aborted);
      }
      const leaving = new AbortController();
      const answer = client(place).chat.completions.create(LONG, { signal: leaving.signal });
      leaving.abort();
      await assert.rejects(answer, APIUserAbortError);
      await becomesIdle();
      assert.ok(only(await whole(place, { ...GREEDY, messages: user(COUNT) })).message.content);
    });
  });
}

it('32 parallel streams each get the answer that each gets alone', async () => {
  const alone: (string | null)[] = [];
  for (const prompt of MANY_PROMPTS) {
    alone.push(only(await whole('local', { ...GREEDY, messages: user(prompt) })).message.content);
  }
  const together = await Promise.all(
    MANY_PROMPTS.map(async (prompt, index) => {
      const place = index % 2 === 0 ? 'local' : 'hop';
      return only(await streamed(place, { ...GREEDY, messages: user(prompt) })).message.content;
    }),
  );
  assert.deepEqual(together, alone);
  assert.ok(new Set(alone).size >= 16, 'the answers differ, so that mixing them up would show');
});

it('a server that is not there is a connection error', async () => {
  const nobody = new OpenAI({ baseURL: 'http://127.0.0.1:1/v1', apiKey: 'none', maxRetries: 0 });
  await assert.rejects(nobody.models.list(), APIConnectionError);
});

it('a stream that breaks off raises, and is never taken for whole', async () => {
  const stream = await client('hop').chat.completions.create({ ...LONG, stream: true });
  let text = '';
  await assert.rejects(
    async () => {
      for await (const chunk of stream) {
        if (text === '' && chunk.choices[0]?.delta.content) await nodes.loseServing();
        text += chunk.choices[0]?.delta.content ?? '';
      }
    },
    (error) => error instanceof APIError && error.code === 'peer_lost',
  );
  assert.notEqual(text, '');
});

it('the client speaks to nobody else', () => {
  assert.deepEqual([...watch.hosts], ['127.0.0.1']);
});
