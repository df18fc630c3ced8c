/** The two servers of the facade's bench: the facade in front of an instant dispatcher, and a bare one with the same bytes. */
import { once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { Facade } from '../node/api/server.ts';
import { systemClock } from '../node/common/clock.ts';
import { silentLogger } from '../node/common/logger.ts';
import { Metrics } from '../node/common/metrics.ts';
import type { Dispatch, Dispatcher } from '../node/routing/dispatch.ts';
import type { InferenceEvent } from '../protocols/inference/events.ts';

/** Tokens of each streamed answer. */
export const STREAM_TOKENS = 500;

const ACCEPTED: InferenceEvent = { type: 'accepted', node: 'bench', promptTokens: 9, promptDigest: '', artifact: null };

function ended(completionTokens: number): InferenceEvent {
  const usage = { promptTokens: 9, completionTokens, cachedTokens: 0 };
  return { type: 'end', finishReasons: ['stop'], usage, timings: { promptMs: 1, predictedMs: 1 } };
}

/** Every stream gets one token per turn of the event loop, as from an engine's step or a peer's frame. */
class InstantDispatcher implements Dispatcher {
  #waiting: (() => void)[] = [];

  dispatch(_request: unknown, { stream }: { readonly stream: boolean }): Dispatch {
    return { events: stream ? this.#stepped() : whole(), servedBy: 'bench', resumed: 0, nodes: [], attempts: 1 };
  }

  async *#stepped(): AsyncGenerator<InferenceEvent> {
    yield ACCEPTED;
    for (let index = 0; index < STREAM_TOKENS; index += 1) {
      await this.#step();
      yield { type: 'chunk', choice: 0, index, tokens: [index], text: ' token' };
    }
    yield ended(STREAM_TOKENS);
  }

  #step(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#waiting.push(resolve) > 1) return;
      setImmediate(() => {
        for (const release of this.#waiting.splice(0)) release();
      });
    });
  }
}

async function* whole(): AsyncGenerator<InferenceEvent> {
  yield ACCEPTED;
  yield { type: 'chunk', choice: 0, index: 0, tokens: [1, 2, 3], text: '2 plus 2 is 4.' };
  yield ended(3);
}

/** Starts the facade; resolves to its port. */
export async function startFacadeServer(): Promise<number> {
  const facade: Facade = new Facade(
    {
      dispatcher: new InstantDispatcher(),
      localModels: () => [],
      remoteModels: () => [],
      node: () => {
        throw new Error('The bench asks for no status.');
      },
      peers: () => [],
      routingStats: () => [],
      loadBalancing: () => ({ enabled: true, strategy: 'least-loaded', failureThreshold: 3, resetTimeoutSecs: 60 }),
      metrics: new Metrics(),
      logger: silentLogger,
      clock: systemClock,
    },
    { host: '127.0.0.1', port: 0, apiKey: null, allowHosts: [], allowOrigins: [] },
  );
  await facade.start();
  return Number(new URL(facade.address()).port);
}

/** Starts a server that reads the body and writes an answer of the facade's size and headers; resolves to its port. */
export async function startBareServer(): Promise<number> {
  const usage = {
    prompt_tokens: 9,
    completion_tokens: 3,
    total_tokens: 12,
    prompt_tokens_details: { cached_tokens: 0 },
  };
  const answer = JSON.stringify({
    id: `chatcmpl-${'0'.repeat(32)}`,
    object: 'chat.completion',
    created: 1_760_000_000,
    model: 'm',
    choices: [
      {
        index: 0,
        message: { role: 'assistant', content: '2 plus 2 is 4.', refusal: null },
        logprobs: null,
        finish_reason: 'stop',
      },
    ],
    usage,
    timings: {
      cache_n: 0,
      prompt_n: 9,
      prompt_ms: 1,
      prompt_per_second: 9000,
      predicted_n: 3,
      predicted_ms: 1,
      predicted_per_second: 3000,
    },
  });
  const server = http.createServer((request, response) => {
    request.resume();
    request.on('end', () => {
      response.writeHead(200, {
        'x-request-id': `req_${'0'.repeat(32)}`,
        'x-meshnode-node': 'bench',
        'x-meshnode-attempts': '1',
        'content-type': 'application/json; charset=utf-8',
        'content-length': Buffer.byteLength(answer),
      });
      response.end(answer);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}
