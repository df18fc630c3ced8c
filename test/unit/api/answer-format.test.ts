/** Answers with everything that they may have, streamed and whole: in OpenAI's shapes, and the same in both. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { answerIdentity, type Resumption, wholeAnswer } from '../../../node/api/answer-format.ts';
import { collect } from '../../../node/api/answer-parts.ts';
import { ChunkFormat } from '../../../node/api/chunk-format.ts';
import { withLoadBound } from '../../../node/api/load-wait.ts';
import { completionLogprobs } from '../../../node/api/logprob-format.ts';
import type {
  ChunkEvent,
  EndEvent,
  FinishReason,
  InferenceEvent,
  TokenLogprob,
} from '../../../protocols/inference/events.ts';
import { eventData } from '../../support/event-stream.ts';
import fc from '../../support/fc.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { assertShape } from '../../support/openai-shapes.ts';
import { accepted, chunk, end } from '../../support/scripted-backend.ts';

const NOT_RESUMED: Resumption = { resumed: 0, nodes: [] };

interface Choice {
  readonly index: number;
  readonly text?: string;
  readonly delta?: Delta;
  readonly message?: Delta;
  readonly finish_reason: string | null;
  readonly logprobs: null | {
    readonly content?: readonly object[];
    readonly [field: string]: readonly unknown[] | undefined;
  };
}
interface Delta {
  readonly role?: string;
  readonly content?: string | null;
  readonly reasoning_content?: string;
  readonly tool_calls?: readonly {
    readonly index?: number;
    readonly id?: string;
    readonly function: { readonly name?: string; readonly arguments: string };
  }[];
}
interface Answer {
  readonly choices: readonly Choice[];
  readonly usage?: { readonly completion_tokens_details?: object } | null;
  readonly timings?: object;
  readonly x_meshnode?: object;
}

function ended(finishReasons: readonly FinishReason[], reasoningTokens?: number): EndEvent {
  const whole = end(3);
  return {
    ...whole,
    finishReasons,
    usage: { ...whole.usage, ...(reasoningTokens === undefined ? {} : { reasoningTokens }) },
  };
}

type Kind = 'chat' | 'completion';

/** The chunks of a stream, each in OpenAI's shape. */
function streamed(kind: Kind, chunks: readonly ChunkEvent[], last: EndEvent, resumption = NOT_RESUMED): Answer[] {
  const format = new ChunkFormat(answerIdentity(kind, 'a1', 'm'), true, resumption);
  const printed = chunks.map((event) => format.chunk(event)).join('') + format.end(last);
  assert.doesNotMatch(printed, /[\u0085\u2028\u2029\r]/);
  return eventData(printed).map((data) => {
    const value = JSON.parse(data) as Answer;
    assertShape(`${kind}Chunk`, value);
    return value;
  });
}

async function whole(
  kind: Kind,
  chunks: readonly ChunkEvent[],
  last: EndEvent,
  resumption = NOT_RESUMED,
): Promise<Answer> {
  async function* events(): AsyncGenerator<InferenceEvent> {
    yield accepted();
    yield* chunks;
    yield last;
  }
  const { choices, end: seen } = await collect(events());
  const answer = JSON.parse(JSON.stringify(wholeAnswer(answerIdentity(kind, 'a1', 'm'), choices, seen, resumption)));
  assertShape(kind, answer);
  return answer as Answer;
}

/** What a client puts together from a stream: the message of one choice. */
function assembled(answers: readonly Answer[], index: number): object {
  const calls: { id: string; name: string; arguments: string }[] = [];
  let [content, reasoning, finish, logprobs]: [string, string, string | null, object[]] = ['', '', null, []];
  for (const choice of answers.flatMap(({ choices }) => choices).filter((it) => it.index === index)) {
    assert.equal(finish, null, 'nothing comes after the finish');
    content += choice.delta?.content ?? choice.text ?? '';
    reasoning += choice.delta?.reasoning_content ?? '';
    for (const part of choice.delta?.tool_calls ?? []) {
      const call = calls[part.index ?? -1] ?? { id: part.id ?? '', name: part.function.name ?? '', arguments: '' };
      calls[part.index ?? -1] = call;
      call.arguments += part.function.arguments;
    }
    logprobs = [...logprobs, ...(choice.logprobs?.content ?? [])];
    finish = choice.finish_reason;
  }
  return { content, reasoning, calls, finish, logprobs };
}

function stated({ choices }: Answer, index: number): object {
  const { message, text, finish_reason: finish, logprobs } = choices[index] ?? assert.fail('a choice is missing');
  const calls = (message?.tool_calls ?? []).map(({ id, function: called }) => ({ id, ...called }));
  const content = message?.content ?? text ?? '';
  return { content, reasoning: message?.reasoning_content ?? '', calls, finish, logprobs: logprobs?.content ?? [] };
}

const logprob = (token: string): TokenLogprob => {
  const own = { token, bytes: [...Buffer.from(token)], logprob: -0.5 };
  return { ...own, top: [own, { ...own, token: '<', logprob: Number.NEGATIVE_INFINITY }] };
};

describe('an answer with tool calls', () => {
  const chunks: ChunkEvent[] = [
    { ...chunk('', 0), toolCalls: [{ index: 0, id: 'call_a', name: 'weather', arguments: '' }] },
    { ...chunk('', 1), toolCalls: [{ index: 0, arguments: '{"city":' }] },
    {
      ...chunk('', 2),
      toolCalls: [
        { index: 0, arguments: '"Ulm"}' },
        { index: 1, id: 'call_b', name: 'time', arguments: '{}' },
      ],
      finish: 'tool_calls',
    },
  ];

  it('names each call once, with a stable index, and finishes as tool_calls', () => {
    const answers = streamed('chat', chunks, ended(['tool_calls']));
    assert.deepEqual(answers[0]?.choices[0]?.delta, { role: 'assistant', content: null });
    assert.deepEqual(answers[1]?.choices[0]?.delta, {
      tool_calls: [{ index: 0, id: 'call_a', type: 'function', function: { name: 'weather', arguments: '' } }],
    });
    assert.deepEqual(answers[2]?.choices[0]?.delta, {
      tool_calls: [{ index: 0, function: { arguments: '{"city":' } }],
    });
    assert.deepEqual(
      answers
        .flatMap(({ choices }) => choices.map((choice) => choice.finish_reason))
        .filter((reason) => reason !== null),
      ['tool_calls'],
    );
  });

  it('has no content when whole', async () => {
    const answer = await whole('chat', chunks, ended(['tool_calls']));
    assert.deepEqual(answer.choices[0]?.message, {
      role: 'assistant',
      content: null,
      refusal: null,
      tool_calls: [
        { id: 'call_a', type: 'function', function: { name: 'weather', arguments: '{"city":"Ulm"}' } },
        { id: 'call_b', type: 'function', function: { name: 'time', arguments: '{}' } },
      ],
    });
  });
});

describe('an answer with thoughts', () => {
  const chunks: ChunkEvent[] = [
    { ...chunk('', 0), reasoning: 'Hm\u2028' },
    { ...chunk('Four', 1), reasoning: '.' },
    { ...chunk('.', 2), finish: 'stop' },
  ];

  it('gives them apart from the content, and counts them', async () => {
    const answer = await whole('chat', chunks, ended(['stop'], 2));
    assert.equal(answer.choices[0]?.message?.reasoning_content, 'Hm\u2028.');
    assert.equal(answer.choices[0]?.message?.content, 'Four.');
    assert.deepEqual(answer.usage?.completion_tokens_details, { reasoning_tokens: 2 });
    const deltas = streamed('chat', chunks, ended(['stop'], 2)).flatMap(({ choices }) => choices[0]?.delta ?? []);
    assert.deepEqual(deltas, [
      { role: 'assistant', content: '' },
      { reasoning_content: 'Hm\u2028' },
      { reasoning_content: '.' },
      { content: 'Four' },
      { content: '.' },
      {},
    ]);
  });

  it('gives them within the text where a completion has no other place', async () => {
    const answer = await whole('completion', chunks, ended(['stop']));
    assert.equal(answer.choices[0]?.text, 'Hm\u2028.Four.');
    const texts = streamed('completion', chunks, ended(['stop'])).map(({ choices }) => choices[0]?.text ?? '');
    assert.equal(texts.join(''), 'Hm\u2028.Four.');
  });
});

describe('an answer with log probabilities', () => {
  it("has them of every token in the chat's shape, though some release no text", async () => {
    const chunks: ChunkEvent[] = [
      { ...chunk('', 0), logprobs: [logprob('\ufffd')] },
      { ...chunk('é!', 1), tokens: [1, 2], logprobs: [logprob('é'), logprob('!')], finish: 'stop' },
    ];
    const shape = (token: string): object => ({
      token,
      logprob: -0.5,
      bytes: [...Buffer.from(token)],
      top_logprobs: [
        { token, logprob: -0.5, bytes: [...Buffer.from(token)] },
        { token: '<', logprob: -9999, bytes: [...Buffer.from(token)] },
      ],
    });
    const all = ['\ufffd', 'é', '!'].map(shape);
    assert.deepEqual((await whole('chat', chunks, ended(['stop']))).choices[0]?.logprobs, {
      content: all,
      refusal: null,
    });
    const told = streamed('chat', chunks, ended(['stop'])).flatMap(
      ({ choices }) => choices[0]?.logprobs?.content ?? [],
    );
    assert.deepEqual(told, all);
  });

  it("has them in the completion's shape, the echoed prompt first, with offsets into the text", async () => {
    const prompt = [null, logprob(' upon')];
    const chunks: ChunkEvent[] = [
      { ...chunk('Once upon a', 0), promptLogprobs: prompt, logprobs: [logprob(' a')] },
      { ...chunk(' time', 1), logprobs: [logprob(' time')], finish: 'length' },
    ];
    const expected = {
      tokens: ['Once', ' upon', ' a', ' time'],
      token_logprobs: [null, -0.5, -0.5, -0.5],
      top_logprobs: [null, { ' upon': -0.5, '<': -9999 }, { ' a': -0.5, '<': -9999 }, { ' time': -0.5, '<': -9999 }],
      text_offset: [0, 4, 9, 11],
    };
    const answer = await whole('completion', chunks, ended(['length']));
    assert.equal(answer.choices[0]?.text, 'Once upon a time');
    assert.deepEqual(answer.choices[0]?.logprobs, expected);
    const parts = streamed('completion', chunks, ended(['length']))
      .map(({ choices }) => choices[0]?.logprobs)
      .filter((logprobs) => logprobs !== null && logprobs !== undefined);
    for (const [field, values] of Object.entries(expected)) {
      assert.deepEqual(
        parts.flatMap((it) => it[field] ?? []),
        values,
        field,
      );
    }
  });
});

describe('completionLogprobs', () => {
  const tokensOf = (text: string, prompt: (TokenLogprob | null)[], answer: string[]): unknown => {
    const { shape } = completionLogprobs(answer.map(logprob), 0, { entries: prompt, text });
    return (shape as { tokens: string[] }).tokens;
  };
  it("finds the prompt's first token in the text, however far that has come", () => {
    assert.deepEqual(tokensOf('The', [null], []), ['The']);
    assert.deepEqual(tokensOf('The sk', [null], [' s', 'k', 'y']), ['The', ' s', 'k', 'y']);
    assert.deepEqual(tokensOf('aaaa', [null, logprob('a'), logprob('a')], ['a']), ['a', 'a', 'a', 'a']);
    assert.deepEqual(tokensOf('Hi', [null, logprob('Hi')], ['\ufffd']), ['', 'Hi', '\ufffd']);
    assert.deepEqual(tokensOf('?', [null, logprob('Hi')], []), ['', 'Hi']);
  });
});

describe('an answer that went on elsewhere', () => {
  const resumption = { resumed: 1, nodes: ['12D3KooWA', '12D3KooWB'] };
  it('says so in its finish chunk, and in its body when whole', async () => {
    const chunks = [chunk('a'), { ...chunk('b', 1), finish: 'stop' as const }];
    const answers = streamed('chat', chunks, ended(['stop']), resumption);
    assert.deepEqual(
      answers.map(({ choices, x_meshnode }) => [choices[0]?.finish_reason ?? null, x_meshnode ?? null]),
      [
        [null, null],
        [null, null],
        [null, null],
        ['stop', resumption],
        [null, null],
      ],
    );
    assert.deepEqual((await whole('chat', chunks, ended(['stop']), resumption)).x_meshnode, resumption);
  });

  it('says nothing of it otherwise', async () => {
    const answer = await whole('chat', [chunk('a')], ended(['stop']));
    assert.equal('x_meshnode' in answer, false);
  });
});

describe('several answers to one request', () => {
  it('each begin, finish as they do, and are counted once', () => {
    const of = (choice: number, text: string, finish?: FinishReason): ChunkEvent => ({
      ...chunk(text),
      choice,
      ...(finish === undefined ? {} : { finish }),
    });
    const answers = streamed('chat', [of(1, 'b'), of(0, 'a', 'length'), of(1, 'c')], ended(['length', 'stop', 'stop']));
    const lines = answers.flatMap(({ choices }) => choices.map((it) => [it.index, it.delta, it.finish_reason]));
    assert.deepEqual(lines, [
      [1, { role: 'assistant', content: '' }, null],
      [1, { content: 'b' }, null],
      [0, { role: 'assistant', content: '' }, null],
      [0, { content: 'a' }, null],
      [0, {}, 'length'],
      [1, { content: 'c' }, null],
      [1, {}, 'stop'],
      [2, { role: 'assistant', content: '' }, null],
      [2, {}, 'stop'],
    ]);
    assert.ok(answers.at(-1)?.timings !== undefined && answers.at(-1)?.choices.length === 0);
  });
});

/** Chunks of two choices such as an engine gives: each with tokens, its parts possibly empty. */
const anyAnswer = fc
  .record({
    logprobs: fc.boolean(),
    parts: fc.array(
      fc.record({
        choice: fc.nat(1),
        text: fc.string({ unit: 'binary', maxLength: 5 }),
        reasoning: fc.option(fc.string({ minLength: 1, maxLength: 5 }), { nil: undefined }),
        call: fc.option(fc.string({ maxLength: 5 }), { nil: undefined }),
        begins: fc.boolean(),
      }),
      { maxLength: 12 },
    ),
  })
  .map(({ logprobs, parts }) => {
    const [next, calls] = [
      [0, 0],
      [0, 0],
    ];
    return parts.map(({ choice, text, reasoning, call, begins }): ChunkEvent => {
      const index = next[choice] ?? 0;
      next[choice] = index + 1;
      const isNew = call !== undefined && (begins || calls[choice] === 0);
      if (isNew) calls[choice] = (calls[choice] ?? 0) + 1;
      const number = (calls[choice] ?? 0) - 1;
      const named = isNew ? { id: `c${choice}${number}`, name: 'f' } : {};
      return {
        ...chunk(text, index),
        choice,
        ...(reasoning === undefined ? {} : { reasoning }),
        ...(call === undefined ? {} : { toolCalls: [{ index: number, ...named, arguments: call }] }),
        ...(logprobs ? { logprobs: [logprob(text)] } : {}),
      };
    });
  });

describe('any answer', () => {
  it('says the same streamed and whole', async () => {
    await fc.assert(
      fc.asyncProperty(anyAnswer, async (chunks) => {
        const last = ended(['stop', 'length']);
        const answers = streamed('chat', chunks, last);
        const answer = await whole('chat', chunks, last);
        for (const choice of [0, 1]) assert.deepEqual(assembled(answers, choice), stated(answer, choice));
      }),
    );
  });
});

describe('withLoadBound', () => {
  const clock = new ManualClock();
  const loading = (fraction: number | null): InferenceEvent => ({ type: 'progress', state: 'loading', fraction });
  async function* slowly(events: readonly InferenceEvent[], stepMs: number): AsyncGenerator<InferenceEvent> {
    for (const event of events) {
      clock.advance(stepMs);
      yield event;
    }
  }

  it('gives up on a model that loads for longer, with its progress and when to come back', async () => {
    const source = slowly([loading(null), loading(0.1), loading(0.5), accepted(), end(0)], 30_000);
    await assert.rejects(
      async () => {
        for await (const _ of withLoadBound(source, { clock, loadWaitMs: 60_000 }));
      },
      {
        code: 'model_not_loaded',
        facts: { retryAfterMs: 60_000, progress: { state: 'loading', fraction: 0.5 } },
      },
    );
    assert.deepEqual(await source.next(), { done: true, value: undefined }, 'the source was left');
  });

  it('waits for as long as it takes in the queue, and for a model that loads in time', async () => {
    const queued: InferenceEvent = { type: 'progress', state: 'queued', fraction: null };
    const events = [queued, queued, queued, loading(0.2), loading(0.9), accepted(), end(0)];
    const source = withLoadBound(slowly(events, 40_000), { clock, loadWaitMs: 60_000 });
    assert.deepEqual(await Array.fromAsync(source), events);
  });
});
