/** A dispatcher that answers by script, for fault tests: each token can be verified from the request alone. */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { MeshError } from '../../node/common/errors.ts';
import type { Dispatch, Dispatcher, DispatchOptions } from '../../node/routing/dispatch.ts';
import type {
  AcceptedEvent,
  ChunkEvent,
  EndEvent,
  InferenceEvent,
  InferenceRequest,
} from '../../protocols/inference/events.ts';

/** What a model does with a request. Leaving or aborting it is recorded, not hidden. */
export type Script = (request: InferenceRequest, signal: AbortSignal) => AsyncGenerator<InferenceEvent>;

export const SCRIPTED_NODE = '12D3KooWScripted';

/** Token `index` of the answer to `requestId`: five letters and a space that no other request has. */
export function scriptedToken(requestId: string, index: number): string {
  return `${createHash('sha256').update(`${requestId}:${index}`).digest('hex').slice(0, 5)} `;
}

/** The whole text of an answer of `count` tokens. */
export function scriptedText(requestId: string, count: number): string {
  return Array.from({ length: count }, (_, index) => scriptedToken(requestId, index)).join('');
}

export function accepted(promptTokens = 3): AcceptedEvent {
  return { type: 'accepted', node: SCRIPTED_NODE, promptTokens, promptDigest: '0'.repeat(64), artifact: null };
}

export function chunk(text: string, index = 0): ChunkEvent {
  return { type: 'chunk', choice: 0, index, tokens: [index], text };
}

export function end(completionTokens: number, finishReason: 'stop' | 'length' = 'stop'): EndEvent {
  return {
    type: 'end',
    finishReasons: [finishReason],
    usage: { promptTokens: 3, completionTokens, cachedTokens: 1 },
    timings: { promptMs: 4, predictedMs: 20 },
  };
}

/** Answers with `count` tokens, one event each. */
export function answering(count: number): Script {
  return async function* (request) {
    yield accepted();
    for (let i = 0; i < count; i += 1) yield chunk(scriptedToken(request.requestId, i), i);
    yield end(count);
  };
}

/** Answers with exactly these texts. */
export function saying(texts: readonly string[]): Script {
  return async function* () {
    yield accepted();
    for (const [index, text] of texts.entries()) yield chunk(text, index);
    yield end(texts.length);
  };
}

/** Gives `count` tokens, then fails. */
export function failing(error: MeshError, count = 0): Script {
  return async function* (request) {
    if (count > 0) yield accepted();
    for (let i = 0; i < count; i += 1) yield chunk(scriptedToken(request.requestId, i), i);
    throw error;
  };
}

/** Gives `count` tokens, then nothing until the signal aborts. */
export function hanging(count: number): Script {
  return async function* (request, signal) {
    if (count > 0) yield accepted();
    for (let i = 0; i < count; i += 1) yield chunk(scriptedToken(request.requestId, i), i);
    if (!signal.aborted) await once(signal, 'abort');
    throw new MeshError('client_closed', 'The request was cancelled.');
  };
}

/** One request that the dispatcher was given. */
export interface Dispatched {
  readonly request: InferenceRequest;
  readonly stream: boolean;
  readonly signal: AbortSignal;
  /** Has the iteration been left, in whichever way? */
  settled: boolean;
}

export class ScriptedDispatcher implements Dispatcher {
  readonly scripts: Map<string, Script>;
  readonly dispatched: Dispatched[] = [];
  #onDispatch: (() => void)[] = [];

  constructor(scripts: Readonly<Record<string, Script>>) {
    this.scripts = new Map(Object.entries(scripts));
  }

  dispatch(request: InferenceRequest, { signal, stream }: DispatchOptions): Dispatch {
    const record: Dispatched = { request, stream, signal, settled: false };
    this.dispatched.push(record);
    for (const resolve of this.#onDispatch.splice(0)) resolve();
    const script = this.scripts.get(request.model);
    let servedBy: string | null = null;
    const events = async function* (): AsyncGenerator<InferenceEvent> {
      try {
        if (script === undefined) {
          throw new MeshError('model_not_available', `No node has the model "${request.model}".`, { param: 'model' });
        }
        for await (const event of script(request, signal)) {
          if (event.type === 'accepted') servedBy = event.node;
          yield event;
        }
      } finally {
        record.settled = true;
      }
    };
    return {
      events: events(),
      get servedBy() {
        return servedBy;
      },
      resumed: 0,
      nodes: [],
      attempts: script === undefined ? 0 : 1,
    };
  }

  /** The request of this number (0-based), as soon as it is dispatched. */
  async nth(index: number): Promise<Dispatched> {
    for (;;) {
      const found = this.dispatched[index];
      if (found !== undefined) return found;
      await new Promise<void>((resolve) => this.#onDispatch.push(resolve));
    }
  }
}
