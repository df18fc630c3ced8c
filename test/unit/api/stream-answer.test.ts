import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import type { ServerResponse } from 'node:http';
import { describe, it } from 'node:test';
import { ChunkFormat } from '../../../node/api/chunk-format.ts';
import { StreamAnswer } from '../../../node/api/stream-answer.ts';
import { MeshError } from '../../../node/common/errors.ts';
import type { InferenceEvent } from '../../../protocols/inference/events.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { accepted, chunk, end } from '../../support/scripted-backend.ts';

const TIMES = { headerWaitMs: 15_000, waitingCommentMs: 5_000, gapCommentMs: 10_000, drainMs: 30_000 };

/** A response that records what is written and takes as much as it is told to. */
class RecordedResponse extends EventEmitter {
  headers: Record<string, unknown> | null = null;
  readonly writes: string[] = [];
  takes = true;
  ended = false;
  destroyed = false;
  writeHead(_status: number, headers: Record<string, unknown>): void {
    this.headers = headers;
  }
  write(text: string): boolean {
    this.writes.push(text);
    return this.takes;
  }
  end(text: string): void {
    this.writes.push(text);
    this.ended = true;
  }
  destroy(): void {
    this.destroyed = true;
  }
  get text(): string {
    return this.writes.join('');
  }
}

/** Events that the test pushes one by one. */
class Feed implements AsyncIterable<InferenceEvent> {
  #queue: (InferenceEvent | MeshError | null)[] = [];
  #wake: () => void = () => {};
  push(...events: (InferenceEvent | MeshError | null)[]): void {
    this.#queue.push(...events);
    this.#wake();
  }
  async *[Symbol.asyncIterator](): AsyncGenerator<InferenceEvent> {
    for (;;) {
      const next = this.#queue.shift();
      if (next === null) return;
      if (next instanceof MeshError) throw next;
      if (next !== undefined) yield next;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

function start() {
  const response = new RecordedResponse();
  const clock = new ManualClock();
  const feed = new Feed();
  const controller = new AbortController();
  const answer = new StreamAnswer(
    {
      response: response as unknown as ServerResponse,
      dispatch: { events: feed, resumed: 0, nodes: [], servedBy: '12D3KooWScripted', attempts: 2 },
      format: new ChunkFormat({ kind: 'chat', id: 'chatcmpl-1', created: 1, model: 'm' }, false, {
        resumed: 0,
        nodes: [],
      }),
      signal: controller.signal,
      clock,
      takeOver: () => ({ 'x-request-id': 'r1' }),
    },
    TIMES,
  );
  const outcome = answer.run().then(
    () => null,
    (error: MeshError) => error,
  );
  return { response, clock, feed, controller, outcome };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('StreamAnswer', () => {
  it('sends no header before the first text, then headers that are true', async () => {
    const { response, feed, clock } = start();
    feed.push({ type: 'progress', state: 'loading', fraction: 0.5 }, accepted(), chunk(''));
    clock.advance(14_999);
    await turn();
    assert.equal(response.headers, null);
    feed.push(chunk('hi'));
    await turn();
    assert.equal(response.headers?.['x-meshnode-node'], '12D3KooWScripted');
    assert.equal(response.headers?.['x-meshnode-attempts'], '2');
    assert.equal(response.headers?.['x-request-id'], 'r1');
  });

  it('sends bare headers and comments after the wait, and still takes the answer', async () => {
    const { response, feed, clock, outcome } = start();
    clock.advance(15_000);
    await turn();
    assert.equal(response.headers?.['x-request-id'], 'r1');
    assert.equal(response.headers?.['x-meshnode-node'], undefined);
    assert.equal(response.text, ': waiting\n\n');
    clock.advance(10_000);
    await turn();
    assert.match(response.text, /^(?:: waiting\n\n){2,4}$/);
    feed.push(accepted(), chunk('hi'), end(1), null);
    assert.equal(await outcome, null);
    assert.match(response.text, /"content":"hi"/);
    assert.ok(response.text.endsWith('data: [DONE]\n\n'));
  });

  it('fills long gaps of the content with comments', async () => {
    const { response, feed, clock } = start();
    feed.push(accepted(), chunk('hi'));
    await turn();
    const before = response.writes.length;
    clock.advance(9_000);
    await turn();
    assert.equal(response.writes.length, before);
    clock.advance(5_000);
    await turn();
    assert.equal(response.writes.at(-1), ': waiting\n\n');
  });

  it('writes the events of one turn at once', async () => {
    const { response, feed } = start();
    feed.push(accepted(), chunk('a'), chunk('b'), chunk('c'));
    await turn();
    assert.equal(response.writes.length, 1);
  });

  it('throws a failure before headers, and writes one afterwards without [DONE]', async () => {
    const early = start();
    early.feed.push(new MeshError('overloaded', 'full'));
    assert.equal((await early.outcome)?.code, 'overloaded');
    assert.equal(early.response.headers, null);

    const waiting = start();
    waiting.clock.advance(15_000);
    waiting.feed.push(new MeshError('wedged', 'stuck'));
    assert.equal(await waiting.outcome, null);
    assert.match(waiting.response.text, /"code":"wedged"/);
    assert.equal(waiting.response.text.includes('[DONE]'), false);
    assert.equal(waiting.response.ended, true);
  });

  it('calls an answer without its end event cut, never done', async () => {
    const { response, feed, outcome } = start();
    feed.push(accepted(), chunk('half'), null);
    await outcome;
    assert.match(response.text, /"code":"protocol_violation"/);
    assert.equal(response.text.includes('[DONE]'), false);
  });

  it('stops taking events while the client does not read, and goes on at drain', async () => {
    const { response, feed, outcome } = start();
    response.takes = false;
    feed.push(accepted(), chunk('a'));
    await turn();
    feed.push(chunk('b'));
    await turn();
    feed.push(chunk('c'), chunk('d'), end(4), null);
    await turn();
    assert.doesNotMatch(response.text, /"content":"d"/);
    response.takes = true;
    response.emit('drain');
    assert.equal(await outcome, null);
    assert.match(response.text, /"content":"d"[\s\S]*\[DONE\]/);
  });

  it('drops a client that reads nothing for the whole bound', async () => {
    const { response, feed, clock, outcome } = start();
    response.takes = false;
    feed.push(accepted(), chunk('a'));
    await turn();
    feed.push(chunk('b'));
    await turn();
    clock.advance(30_000);
    assert.equal(await outcome, null);
    assert.equal(response.destroyed, true);
  });

  it('ends with the reason of an abort although the dispatch never settles', async () => {
    const { response, feed, controller, outcome } = start();
    feed.push(accepted(), chunk('a'));
    await turn();
    controller.abort(new MeshError('draining', 'stopping'));
    assert.equal(await outcome, null);
    assert.match(response.text, /"code":"draining"/);
    feed.push(chunk('late'));
    await turn();
    assert.equal(response.text.includes('late'), false);
  });
});
