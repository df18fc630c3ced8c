/** Parts that the tests of the inference wire share: a request, a scripted answer, and a pair with a server on it. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { systemClock } from '../../node/common/clock.ts';
import type { MeshError } from '../../node/common/errors.ts';
import { type InferenceClientLimits, infer, type StreamLease } from '../../protocols/inference/client.ts';
import type {
  AcceptedEvent,
  ChunkEvent,
  EndEvent,
  InferenceEvent,
  InferenceRequest,
} from '../../protocols/inference/events.ts';
import { type InferenceHandler, type InferenceServerLimits, serveInference } from '../../protocols/inference/server.ts';
import { INFERENCE_PROTOCOL } from '../../protocols/protocol-id.ts';
import { type Libp2pPair, libp2pPair, type StreamHandler } from './libp2p-pair.ts';

export const ACCEPTED: AcceptedEvent = {
  type: 'accepted',
  node: '12D3KooWA',
  promptTokens: 3,
  promptDigest: 'ab'.repeat(32),
  artifact: null,
};
export const END: EndEvent = {
  type: 'end',
  finishReasons: ['stop'],
  usage: { promptTokens: 3, completionTokens: 2, cachedTokens: 0 },
  timings: { promptMs: 1, predictedMs: 2 },
};

export function makeRequest(body: Uint8Array = Buffer.from('{}')): InferenceRequest {
  return { requestId: '0123456789abcdef0123456789abcdef', kind: 'chat', model: 'meshnode-demo', seed: 42, body };
}

export function chunk(index: number, text = `t${index} `): ChunkEvent {
  return { type: 'chunk', choice: 0, index, tokens: [index], text };
}

/** Accepts, says `tokens` tokens, ends. */
export async function* answer(tokens: number): AsyncGenerator<InferenceEvent> {
  yield ACCEPTED;
  for (let index = 0; index < tokens; index++) yield chunk(index);
  yield END;
}

/** Fails the test for any rejection that nobody owned. */
export function watchRejections(test: TestContext): void {
  const unhandled: unknown[] = [];
  const listener = (reason: unknown): void => void unhandled.push(reason);
  process.on('unhandledRejection', listener);
  test.after(async () => {
    await new Promise((resolve) => setImmediate(resolve));
    process.off('unhandledRejection', listener);
    assert.deepEqual(unhandled, []);
  });
}

export interface AskOptions {
  readonly signal?: AbortSignal;
  readonly limits?: Partial<InferenceClientLimits>;
  readonly authorization?: string;
  acquire?(signal: AbortSignal): Promise<StreamLease>;
}

export interface WireMesh {
  readonly pair: Libp2pPair;
  /** What the server reported of its peers. */
  readonly violations: MeshError[];
  /** Calls of `serveInference` that have not resolved. */
  serving(): number;
  ask(request?: InferenceRequest, options?: AskOptions): AsyncGenerator<InferenceEvent>;
}

export interface WireMeshOptions {
  readonly limits?: Partial<InferenceServerLimits>;
  readonly reserveBytes?: (sizeBytes: number) => (() => void) | null;
  /** Instead of our own serving half. */
  readonly instead?: StreamHandler;
}

/** A pair whose serving side answers with `handler`; stopped when the test is over, which no rejection may outlive. */
export async function wireMesh(
  test: TestContext,
  handler: InferenceHandler,
  { limits = {}, reserveBytes, instead }: WireMeshOptions = {},
): Promise<WireMesh> {
  watchRejections(test);
  const violations: MeshError[] = [];
  let serving = 0;
  const serve: StreamHandler = async (stream, from) => {
    serving++;
    await serveInference(stream, from, handler, {
      clock: systemClock,
      limits,
      onViolation: (error) => violations.push(error),
      ...(reserveBytes === undefined ? {} : { reserveBytes }),
    });
    serving--;
  };
  const pair = await libp2pPair({ [INFERENCE_PROTOCOL]: instead ?? serve });
  test.after(() => pair.stop());
  return {
    pair,
    violations,
    serving: () => serving,
    ask: (request = makeRequest(), options = {}) =>
      infer(request, {
        clock: systemClock,
        signal: options.signal ?? new AbortController().signal,
        acquire:
          options.acquire ?? (async (signal) => ({ stream: await pair.open(INFERENCE_PROTOCOL, signal), fresh: true })),
        ...(options.limits === undefined ? {} : { limits: options.limits }),
        ...(options.authorization === undefined ? {} : { authorization: options.authorization }),
      }),
  };
}

/** Text and tokens of an answer. */
export async function collect(events: AsyncIterable<InferenceEvent>): Promise<{ text: string; tokens: number[] }> {
  let text = '';
  const tokens: number[] = [];
  for await (const event of events) {
    if (event.type !== 'chunk') continue;
    text += event.text;
    tokens.push(...event.tokens);
  }
  return { text, tokens };
}

/** Waits until `condition` holds, looking again every few milliseconds, and fails after ten seconds. */
export async function until(condition: () => boolean): Promise<void> {
  const endsAt = systemClock.now() + 10_000;
  while (!condition()) {
    assert.ok(systemClock.now() < endsAt, `it never came that ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
