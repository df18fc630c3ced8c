/** Whether one model has a child: loaded when wanted and when there is room, supervised, restarted, unloaded. */

import type { ModelState } from '../../../protocols/catalog/catalog.ts';
import type { ProgressEvent } from '../../../protocols/inference/events.ts';
import { MeshError, toMeshError } from '../../common/errors.ts';
import type { MemoryNeed, UnloadReason } from '../backend.ts';
import type { FromChild } from './ipc.ts';
import { KeepAlive } from './memory/keep-alive.ts';
import { type LoadPlan, loadPlan } from './memory/load-plan.ts';
import type { Tenant } from './memory/memory-room.ts';
import type { ModelLifeComponents, ModelLifeOptions } from './model-life-components.ts';
import { childOf, type Phase, progressOf, stateOf, useOf } from './model-phase.ts';
import { quarantineError, RestartPolicy } from './restart-policy.ts';
import { SupervisedChild } from './supervised-child.ts';

/** A restart this near is worth waiting for; otherwise another node may be faster. */
const WORTH_WAITING_MS = 2_000;

export class ModelLife implements Tenant {
  /** Its id. */
  readonly model: string;
  readonly #components: ModelLifeComponents;
  readonly #options: ModelLifeOptions;
  readonly #policy = new RestartPolicy();
  readonly #keepAlive: KeepAlive;
  #phase: Phase = { name: 'off' };
  /** Why there was no memory for it when it was last tried. */
  #refusal: MeshError | null = null;
  /** Why the child is about to exit, when that is known before it does. */
  #verdict: MeshError | null = null;

  constructor(components: ModelLifeComponents, options: ModelLifeOptions) {
    this.#components = components;
    this.#options = options;
    const { clock, file } = components;
    this.#keepAlive = new KeepAlive({ clock, onOver: () => this.#unload('idle') }, options.keepAliveMs);
    this.model = file().id;
  }

  get state(): ModelState {
    return stateOf(this.#phase);
  }

  /** Tokens per sequence as loaded, null before. */
  get contextTokens(): number | null {
    return this.#phase.name === 'ready' ? this.#phase.contextTokens : null;
  }

  /** The child, as long as there is one. */
  get child(): SupervisedChild | null {
    return childOf(this.#phase);
  }

  /** The child, if it takes orders. */
  get readyChild(): SupervisedChild | null {
    return this.#phase.name === 'ready' && this.#verdict === null ? this.#phase.child : null;
  }

  /** What it takes, or would take if it were loaded now. */
  get need(): MemoryNeed {
    return 'need' in this.#phase ? this.#phase.need : this.#plan().need;
  }

  /** Why it cannot be used now. */
  get problem(): MeshError | null {
    return this.#phase.name === 'resting' ? this.#phase.error : this.#refusal;
  }

  /** Milliseconds until it is unloaded unless it is used; null when it is not about to be. */
  get unloadInMs(): number | null {
    return this.#keepAlive.remainingMs;
  }

  /** What an order waits for. */
  get progress(): ProgressEvent {
    return progressOf(this.#phase);
  }

  /** See `Tenant`. */
  get use(): Tenant['use'] {
    return useOf(this.#phase, this.#components.demand().isBusy);
  }

  get pinned(): boolean {
    return this.#components.isPinned();
  }

  get lastUsedAt(): number {
    return this.#keepAlive.lastUsedAt;
  }

  evict(): void {
    this.#unload('evicted');
  }

  /**
   * Is it worth queueing for it?
   *
   * @throws MeshError why not: it failed and is left alone for a while, or this node stops.
   */
  refuseUnavailable(): void {
    const phase = this.#phase;
    if (phase.name === 'stopped') throw new MeshError('draining', 'This node is shutting down.');
    if (phase.name !== 'resting') return;
    const retryAfterMs = phase.notBefore - this.#components.clock.now();
    if (retryAfterMs > WORTH_WAITING_MS) {
      throw new MeshError(phase.error.code, phase.error.message, { retryAfterMs: Math.ceil(retryAfterMs) });
    }
  }

  /** Somebody uses it. */
  used(): void {
    this.#keepAlive.used();
  }

  /** Orders wait: loads it, unless it is loaded or will be. */
  load(): void {
    if (this.#phase.name === 'off') this.#makeRoom();
  }

  /**
   * Loads it without a request.
   *
   * @throws MeshError as `refuseUnavailable` does.
   */
  want(): void {
    this.refuseUnavailable();
    this.#keepAlive.want();
    this.load();
  }

  /** Unloads it as soon as it has answered what it was asked. */
  unwant(): void {
    this.#keepAlive.unwant(this.child !== null);
    this.settle();
  }

  /** It was pinned, or is not any more. */
  pinChanged(): void {
    if (this.pinned && this.#phase.name !== 'resting') this.want();
    this.settle();
  }

  /** Gives the child up. Final. */
  async stop(error: MeshError): Promise<void> {
    const phase = this.#phase;
    this.#phase = { name: 'stopped' };
    this.#keepAlive.gone();
    if (phase.name === 'resting') phase.cancel();
    if (phase.name === 'waiting') phase.abort.abort(error);
    this.#components.onLost(error, 'all');
    await childOf(phase)?.kill();
    this.#components.room.leave(this);
  }

  /** Call when demand falls. When nobody uses the model it goes, now or later, or makes room for another. */
  settle(): void {
    const { demand, room } = this.#components;
    if (demand().isBusy) return;
    if (this.#phase.name === 'waiting' && !this.#keepAlive.isWanted) {
      this.#phase.abort.abort(new MeshError('client_closed', 'Nobody waits for this model any more.'));
    }
    if (this.#phase.name !== 'ready') return;
    if (this.#keepAlive.idle(this.pinned)) this.#unload('asked');
    room.changed();
  }

  #plan(): LoadPlan {
    const { file, room } = this.#components;
    return loadPlan(file(), this.#options, room.limitBytes(this));
  }

  #makeRoom(): void {
    const { room } = this.#components;
    const plan = this.#plan();
    const { need, roomBytes } = plan;
    this.#refusal = null;
    const phase: Phase = { name: 'waiting', abort: new AbortController(), need };
    this.#phase = phase;
    room.claim(this, roomBytes, need, phase.abort.signal).then(
      () => (this.#phase === phase ? this.#fork(plan) : room.leave(this)),
      (thrown: unknown) => {
        if (this.#phase === phase) this.#noRoom(toMeshError(thrown));
      },
    );
  }

  #noRoom(error: MeshError): void {
    const { demand, onLost, onEvent } = this.#components;
    this.#phase = { name: 'off' };
    this.#keepAlive.gone();
    // The wait was given up because nobody waited any more; somebody may have come since.
    if (error.code === 'client_closed') {
      if (!demand().isIdle) this.#makeRoom();
      return;
    }
    this.#refusal = error;
    onLost(error, 'waiting');
    onEvent({ type: 'failed', model: this.model, message: error.message });
  }

  #fork({ contextTokens, need }: LoadPlan): void {
    const { clock, logger, file, demand, onChange } = this.#components;
    const { gpu, parallel, wedgedAfterMs } = this.#options;
    this.#verdict = null;
    const child: SupervisedChild = new SupervisedChild(
      {
        clock,
        logger: logger.child({ model: this.model }),
        work: () => (this.#phase.name === 'loading' ? 'loading' : demand().inFlight > 0 ? 'busy' : 'idle'),
        onMessage: (message) => this.#receive(child, message),
        onWedged: () => this.#wedged(child),
        onExit: (how) => this.#exited(child, how),
      },
      wedgedAfterMs,
    );
    this.#phase = { name: 'loading', child, since: clock.now(), fraction: null, need };
    child.send({ type: 'load', modelPath: file().path, gpu, contextTokens, parallel });
    onChange();
  }

  #receive(child: SupervisedChild, message: Exclude<FromChild, { type: 'beat' }>): void {
    if (child !== childOf(this.#phase)) return;
    if (message.type === 'failed') this.#verdict = new MeshError(message.code, message.message);
    else if (message.type === 'ready') this.#ready(message);
    else if (message.type === 'loading') {
      if (this.#phase.name === 'loading') this.#phase.fraction = message.fraction;
      this.#components.onEvent({ type: 'loading', model: this.model, fraction: message.fraction });
    } else this.#components.onOrderMessage(message);
  }

  #ready({ contextTokens }: FromChild & { type: 'ready' }): void {
    const { clock, onReady, onEvent, onChange } = this.#components;
    if (this.#phase.name !== 'loading') return;
    const { child, since, need } = this.#phase;
    this.#phase = { name: 'ready', child, contextTokens, need };
    this.#keepAlive.loaded();
    onEvent({ type: 'resident', model: this.model, loadMs: Math.round(clock.now() - since) });
    onChange();
    onReady();
    this.settle();
  }

  #unload(reason: UnloadReason): void {
    if (this.#phase.name !== 'ready' || this.#components.demand().isBusy) return;
    const { child } = this.#phase;
    this.#keepAlive.gone();
    this.#phase = { name: 'unloading', child, reason };
    this.#components.onChange();
    void child.kill();
  }

  #wedged(child: SupervisedChild): void {
    if (child !== childOf(this.#phase)) return;
    this.#verdict = new MeshError('wedged', 'The engine stopped responding and is being restarted.');
    this.#components.onLost(this.#verdict, 'running');
  }

  #exited(child: SupervisedChild, how: string): void {
    if (child !== childOf(this.#phase)) return;
    const { room, demand, onEvent, onChange } = this.#components;
    if (this.#phase.name === 'unloading') {
      const { reason } = this.#phase;
      this.#phase = { name: 'off' };
      onEvent({ type: 'unloaded', model: this.model, reason });
    } else {
      this.#failed(how);
    }
    room.leave(this);
    onChange();
    // A request that came while the child was on its way out.
    if (this.#keepAlive.isWanted || !demand().isIdle) this.load();
  }

  #failed(how: string): void {
    const { clock, logger, onLost, onEvent } = this.#components;
    const { model } = this;
    const error = this.#verdict ?? new MeshError('engine_failed', `The engine process of "${model}" ended: ${how}.`);
    const wasReady = this.#phase.name === 'ready';
    const now = clock.now();
    const { notBefore, quarantined } = this.#policy.failed(now);
    const reason = quarantined ? quarantineError(error) : error;
    logger.warn({ model, how, error: error.message, restartInMs: notBefore - now }, 'engine process ended');
    // One that ran before comes back by itself; one that never loaded waits to be asked.
    const cancel = clock.after(notBefore - now, () => this.#rested(wasReady && !quarantined));
    this.#phase = { name: 'resting', notBefore, error: reason, cancel };
    this.#keepAlive.gone();
    onLost(reason, wasReady && notBefore - now <= WORTH_WAITING_MS ? 'running' : 'all');
    onEvent({ type: 'failed', model, message: reason.message });
  }

  #rested(comesBack: boolean): void {
    this.#phase = { name: 'off' };
    if (comesBack || this.pinned) this.#keepAlive.want();
    if (this.#keepAlive.isWanted || !this.#components.demand().isIdle) this.load();
  }
}
