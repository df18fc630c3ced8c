/** A model that a cluster starts by itself, as a backend: whoever asks waits, and is answered by the service then. */
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import type { InferenceEvent, InferenceRequest, ProgressEvent } from '../../../protocols/inference/events.ts';
import { type Clock, sleep } from '../../common/clock.ts';
import { MeshError } from '../../common/errors.ts';
import type { Backend } from '../backend.ts';
import { parseJson } from '../openai-http/parse-json.ts';
import type { Provision } from './provision.ts';

export interface ProvisionBackendComponents {
  readonly clock: Clock;
  readonly provision: Provision;
  /** The service itself; null while requests cannot be sent there. */
  readonly live: () => Backend | null;
}

/** As often as progress may be told. */
const TELL_MS = 500;

export class ProvisionBackend implements Backend {
  readonly kind = 'http';
  readonly id: string;
  readonly #components: ProvisionBackendComponents;

  /** `id`: the service's fingerprint, under which it is known while it runs. */
  constructor(components: ProvisionBackendComponents, { id }: { readonly id: string }) {
    this.#components = components;
    this.id = id;
  }

  /**
   * As its service answers; before that, progress while the service starts.
   *
   * @throws MeshError `model_starting` with a time to come back as well: the start failed, or takes longer than a
   *   client waits that does not stream. The start goes on without it.
   */
  async *infer(request: InferenceRequest, options: { signal: AbortSignal }): AsyncGenerator<InferenceEvent> {
    const { live, provision } = this.#components;
    for (let isFirst = true; ; isFirst = false) {
      const service = live() ?? (yield* this.#started(request, options.signal));
      const done = provision.use();
      let hasBegun = false;
      try {
        for await (const event of service.infer(request, options)) {
          hasBegun = true;
          yield event;
        }
        return;
      } catch (thrown) {
        // Somebody scaled it to zero: that it is not live any more is known by now.
        const mayStart = isFirst && !hasBegun && live() === null && !options.signal.aborted;
        if (!mayStart) throw thrown;
      } finally {
        done();
      }
    }
  }

  async *#started(request: InferenceRequest, signal: AbortSignal): AsyncGenerator<ProgressEvent, Backend> {
    const { clock, provision, live } = this.#components;
    const waitMs = isStreamed(request) ? Number.POSITIVE_INFINITY : provision.rule.waitMs;
    const startedAt = clock.now();
    provision.begin();
    for (;;) {
      const service = live();
      if (service !== null) return service;
      provision.throwIfFailed();
      // It ran for a moment and is gone: from the start.
      if (!provision.isStarting) provision.begin();
      const leftMs = waitMs - (clock.now() - startedAt);
      if (leftMs <= 0) throw provision.stillStarting();
      // Not `loading`: how long to wait for that is the facade's to say, for this it is the rule's.
      yield { type: 'progress', state: 'queued', fraction: provision.fraction };
      await sleep(clock, Math.min(TELL_MS, leftMs), signal).catch((reason: unknown) => {
        // Whoever asks elsewhere rather than wait: that is no failure of the service.
        throw reason instanceof MeshError && reason.code === 'first_token_timeout' ? provision.stillStarting() : reason;
      });
    }
  }
}

/** Can the client be told meanwhile that something happens? */
function isStreamed({ body }: InferenceRequest): boolean {
  const json = parseJson(new TextDecoder().decode(body));
  return isRecord(json) && json['stream'] === true;
}
