/** In front of this node's engine: who runs, who waits and who is told at once to come back later. */
import type { InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import type { LocalBackend } from '../backends/backend.ts';
import type { Clock } from '../common/clock.ts';
import { MeshError } from '../common/errors.ts';
import { AdmissionLane, type Ticket } from './admission-lane.ts';
import type { ServiceState } from './service-state.ts';

export interface AdmissionComponents {
  readonly engine: LocalBackend;
  readonly clock: Clock;
  readonly state: ServiceState;
}

export interface AdmissionOptions {
  /** Requests that wait for a model, for each of its slots. Default 4. */
  readonly queuePerSlot: number;
  /** A longer predicted wait is refused. Default 30,000. */
  readonly maxWaitMs: number;
  /** Whoever waited this long after all, because the prediction was wrong, is refused. Default 60,000. */
  readonly giveUpMs: number;
  /** Between two `progress` of one that waits. Default 500. */
  readonly progressMs: number;
}

export const DEFAULT_ADMISSION: AdmissionOptions = {
  queuePerSlot: 4,
  maxWaitMs: 30_000,
  giveUpMs: 60_000,
  progressMs: 500,
};

/** When a batch request that made room may ask again. */
const retryAfterMs = 1000;

const QUEUED: InferenceEvent = { type: 'progress', state: 'queued', fraction: null };

/**
 * As many requests of a model run at once as it has slots. The others wait, this node's own before those of peers and
 * the peers in turns, unless the queue is full or the wait would be too long.
 */
export class Admission {
  /** The engine for this node's own clients. Fails also with `overloaded` and `draining`. */
  readonly local: LocalBackend;
  readonly #components: AdmissionComponents;
  readonly #options: AdmissionOptions;
  readonly #lanes = new Map<string, AdmissionLane>();

  constructor(components: AdmissionComponents, options: Partial<AdmissionOptions> = {}) {
    this.#components = components;
    this.#options = { ...DEFAULT_ADMISSION, ...options };
    this.local = this.#backend(null);
    components.engine.onCatalogChange(() => this.#catalogChanged());
    components.state.onChange(() => this.#stateChanged());
  }

  /** The engine for the requests of a peer. Fails also with `overloaded` and `draining`. */
  forPeer(fingerprint: string): LocalBackend {
    return this.#backend(fingerprint);
  }

  /** Requests that wait here, to be added to those that wait in the engine. */
  load(): { readonly queued: number } {
    let queued = 0;
    for (const lane of this.#lanes.values()) queued += lane.queued;
    return { queued };
  }

  /** Requests for the model that run or wait here. */
  used(model: string): number {
    const lane = this.#lanes.get(model);
    return lane === undefined ? 0 : lane.running + lane.queued;
  }

  #backend(from: string | null): LocalBackend {
    const { engine } = this.#components;
    return {
      id: engine.id,
      kind: engine.kind,
      catalog: () => engine.catalog(),
      onCatalogChange: (listener) => engine.onCatalogChange(listener),
      infer: (request, { signal }) => this.#infer(from, request, signal),
    };
  }

  async *#infer(from: string | null, request: InferenceRequest, signal: AbortSignal): AsyncGenerator<InferenceEvent> {
    const { engine, clock, state } = this.#components;
    const refusal = state.refusal(from === null ? 'local' : 'peer');
    if (refusal !== null) throw refusal;
    if (signal.aborted) throw abortReason(signal);
    const lane = this.#lane(request.model);
    const ticket = lane.enter(from, request.priority === 'batch');
    const onAbort = (): void => lane.refuse(ticket, abortReason(signal));
    signal.addEventListener('abort', onAbort, { once: true });
    const displaced = new AbortController();
    ticket.onYield = () => {
      displaced.abort(new MeshError('overloaded', 'A request that somebody waits for took the slot', { retryAfterMs }));
      // Its slot in the engine is free a step later, for which the other waits there.
      lane.leave(ticket);
    };
    const ended = ticket.isBatch ? AbortSignal.any([signal, displaced.signal]) : signal;
    try {
      if (ticket.state === 'waiting') yield* this.#wait(lane, ticket);
      if (ticket.error !== null) throw ticket.error;
      let acceptedAt: number | null = null;
      for await (const event of engine.infer(request, { signal: ended })) {
        if (event.type === 'accepted') acceptedAt = clock.now();
        // Before the caller sees it: the engine is done, however long the caller takes.
        if (event.type === 'end') lane.leave(ticket, acceptedAt === null ? null : clock.now() - acceptedAt);
        yield event;
      }
    } catch (error) {
      throw displaced.signal.aborted ? abortReason(displaced.signal) : error;
    } finally {
      signal.removeEventListener('abort', onAbort);
      lane.leave(ticket);
    }
  }

  /** Until the ticket no longer waits. */
  async *#wait(lane: AdmissionLane, ticket: Ticket): AsyncGenerator<InferenceEvent> {
    const { clock } = this.#components;
    const { progressMs, giveUpMs } = this.#options;
    while (ticket.state === 'waiting') {
      yield QUEUED;
      await new Promise<void>((resolve) => {
        const cancel = clock.after(progressMs, resolve);
        ticket.onSettled = () => {
          cancel();
          resolve();
        };
        // It may have settled while the caller had the event.
        if (ticket.state !== 'waiting') ticket.onSettled();
      });
      if (clock.now() - ticket.enteredAt >= giveUpMs) lane.refuse(ticket, lane.overloaded(ticket.from));
    }
  }

  #lane(model: string): AdmissionLane {
    const known = this.#lanes.get(model);
    if (known !== undefined) return known;
    const entry = this.#components.engine.catalog().find(({ id }) => id === model);
    if (entry === undefined) {
      throw new MeshError('model_not_loaded', `Model '${model}' is not served by this node`, { param: 'model' });
    }
    const lane = new AdmissionLane({ clock: this.#components.clock, slots: () => this.#slots(model) }, this.#options);
    this.#lanes.set(model, lane);
    return lane;
  }

  /** One for a model that is gone: the engine says so to whoever still waits for it. */
  #slots(model: string): number {
    return Math.max(1, this.#components.engine.catalog().find(({ id }) => id === model)?.slots ?? 1);
  }

  #catalogChanged(): void {
    const served = new Set(this.#components.engine.catalog().map(({ id }) => id));
    for (const [model, lane] of this.#lanes) {
      lane.pump();
      if (lane.isIdle && !served.has(model)) this.#lanes.delete(model);
    }
  }

  /** Those that wait for what they will not get go elsewhere; what runs finishes. */
  #stateChanged(): void {
    const { state } = this.#components;
    const forAll = state.refusal('local');
    const forPeers = state.refusal('peer');
    for (const lane of this.#lanes.values()) {
      if (forAll !== null) lane.refuseWaiting('all', forAll);
      else if (forPeers !== null) lane.refuseWaiting('peers', forPeers);
    }
  }
}

function abortReason({ reason }: AbortSignal): MeshError {
  return reason instanceof MeshError ? reason : new MeshError('client_closed', 'The request was cancelled.');
}
