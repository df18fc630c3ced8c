/** One model of the engine: its slots and its queue in front of a child that comes and goes. */

import { MeshError } from '../../common/errors.ts';
import { Admission, type OrderMessage } from './admission.ts';
import { Answer } from './answer.ts';
import type { LaneOrder } from './ipc.ts';
import { ModelLife } from './model-life.ts';
import type { ModelLifeComponents, ModelLifeOptions } from './model-life-components.ts';
import { Speed } from './speed.ts';
import type { EngineTask } from './tasks/engine-task.ts';

export type ModelEngineComponents = Omit<ModelLifeComponents, 'demand' | 'onReady' | 'onOrderMessage' | 'onLost'>;

export interface ModelEngineOptions extends ModelLifeOptions {
  readonly queueLimit: number;
}

export class ModelEngine {
  /** Whether it is loaded. */
  readonly life: ModelLife;
  readonly #components: ModelEngineComponents;
  readonly #admission: Admission;
  readonly #speed = new Speed();
  /** Requests that may yet submit orders. */
  #holds = 0;
  #onIdle: () => void = () => {};

  constructor(components: ModelEngineComponents, options: ModelEngineOptions) {
    this.#components = components;
    this.#admission = new Admission(options);
    this.life = new ModelLife(
      {
        ...components,
        demand: () => ({
          isBusy: this.#isBusy,
          isIdle: this.#admission.isIdle,
          inFlight: this.#admission.inFlight,
        }),
        onReady: () => this.#pump(),
        onOrderMessage: (message) => this.#hear(message),
        onLost: (error, orders) => this.#lost(error, orders),
      },
      options,
    );
  }

  /** Of one stream; null before the first measurement. */
  get tokensPerSecond(): number | null {
    return this.#speed.tokensPerSecond;
  }

  get load(): { readonly inFlight: number; readonly queued: number; readonly engineAgeMs: number } {
    const { inFlight, queued } = this.#admission;
    return { inFlight, queued, engineAgeMs: inFlight === 0 ? 0 : (this.life.child?.ageMs ?? 0) };
  }

  /**
   * Queues an order and loads the model if need be. `cancel` the answer when nobody reads it any more.
   *
   * @throws MeshError `overloaded`, `engine_failed`, `out_of_memory` or `draining` when it cannot be taken.
   */
  submit(order: LaneOrder | EngineTask): Answer {
    this.life.refuseUnavailable();
    const { clock } = this.#components;
    const answer = new Answer({ clock, progress: () => this.life.progress }, order);
    this.#admission.enqueue(answer);
    this.life.used();
    this.life.load();
    this.#pump();
    return answer;
  }

  /** Ends an answer early, with `error`. Its slot is free after the step that may be running. */
  cancel(answer: Answer, error: MeshError): void {
    answer.fail(error);
    const id = this.#admission.withdraw(answer);
    if (id !== null) this.life.child?.send({ type: 'cancel', id });
    this.#settle();
  }

  /** Counts as use until the returned function is called: for requests of several orders, one after the other. */
  hold(): () => void {
    this.#holds += 1;
    this.life.used();
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#holds -= 1;
      this.#settle();
    };
  }

  /** Fails what runs and waits, and kills the child. Final. */
  async stop(): Promise<void> {
    await this.life.stop(new MeshError('draining', 'This node is shutting down.'));
    this.#settle();
  }

  /** Takes no more requests, finishes those it has, then stops. */
  async retire(): Promise<void> {
    while (this.#isBusy) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve;
      });
    }
    await this.stop();
  }

  get #isBusy(): boolean {
    return this.#holds > 0 || !this.#admission.isIdle;
  }

  #pump(): void {
    const child = this.life.readyChild;
    if (child === null) return;
    for (let next = this.#admission.admit(); next !== null; next = this.#admission.admit()) {
      const { id, answer } = next;
      const { order } = answer;
      child.send(order.type === 'lane' ? { type: 'generate', id, order } : { type: 'task', id, task: order });
    }
  }

  #hear(message: OrderMessage): void {
    for (const end of this.#admission.hear(message)) {
      this.#speed.measured(end.completionTokens, end.timings.predictedMs);
    }
    this.#pump();
    this.#settle();
  }

  #lost(error: MeshError, orders: 'running' | 'waiting' | 'all'): void {
    if (orders !== 'waiting') this.#admission.failRunning(error);
    if (orders !== 'running') this.#admission.failQueued(error);
    if (!this.#isBusy) this.#onIdle();
  }

  #settle(): void {
    if (this.#isBusy) return;
    this.#onIdle();
    this.life.settle();
  }
}
