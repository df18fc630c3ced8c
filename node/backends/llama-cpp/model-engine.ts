/** One model's engine child over time: started on first use, supervised, restarted; its slots and its queue. */

import type { ModelState } from '../../../protocols/catalog/catalog.ts';
import type { AcceptedEvent, ProgressEvent } from '../../../protocols/inference/events.ts';
import type { CancelTimer, Clock } from '../../common/clock.ts';
import { MeshError } from '../../common/errors.ts';
import type { Logger } from '../../common/logger.ts';
import type { ModelFile } from '../../storage/model-file.ts';
import type { EngineEvent } from '../backend.ts';
import { Admission } from './admission.ts';
import { Answer } from './answer.ts';
import { BeatWatch } from './beat-watch.ts';
import { EngineProcess } from './engine-process.ts';
import type { GenerationRequest } from './generation-request.ts';
import { BEAT_PERIOD_MS, type FromChild, type LoadOrder, type StepOutput } from './ipc.ts';
import { RestartPolicy } from './restart-policy.ts';
import { Speed } from './speed.ts';

/** A restart this near is worth waiting for; otherwise another node may be faster. */
const WORTH_WAITING_MS = 2_000;
const LOADING_SILENCE_MS = 60_000;
const LONGEST_STEP_MS = 180_000;

export interface ModelEngineComponents {
  readonly fingerprint: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The file as it is known now: its digest may come later. */
  readonly file: () => ModelFile;
  readonly onEvent: (event: EngineEvent) => void;
  /** State, context or speed changed. */
  readonly onChange: () => void;
}

export interface ModelEngineOptions extends Omit<LoadOrder, 'type' | 'modelPath'> {
  readonly queueLimit: number;
  readonly wedgedAfterMs: number;
}

type Phase =
  | { readonly name: 'off' }
  | { readonly name: 'loading'; readonly process: EngineProcess; readonly since: number; fraction: number | null }
  | { readonly name: 'ready'; readonly process: EngineProcess; readonly contextTokens: number }
  /** No start before `notBefore`; `error` is why. */
  | { readonly name: 'resting'; readonly notBefore: number; readonly error: MeshError; readonly cancel: CancelTimer }
  | { readonly name: 'stopped' };

export class ModelEngine {
  readonly #components: ModelEngineComponents;
  readonly #options: ModelEngineOptions;
  readonly #policy = new RestartPolicy();
  readonly #speed = new Speed();
  readonly #admission: Admission;
  #phase: Phase = { name: 'off' };
  #watch: BeatWatch | null = null;
  #stopWatching: CancelTimer = () => {};
  /** Why the child is about to exit, when that is known before it does. */
  #verdict: MeshError | null = null;

  constructor(components: ModelEngineComponents, options: ModelEngineOptions) {
    this.#components = components;
    this.#options = options;
    this.#admission = new Admission(options);
  }

  get state(): ModelState {
    if (this.#phase.name === 'ready') return 'resident';
    return this.#phase.name === 'loading' ? 'loading' : 'on-disk';
  }

  /** Tokens per sequence as loaded, null before. */
  get contextTokens(): number | null {
    return this.#phase.name === 'ready' ? this.#phase.contextTokens : null;
  }

  get tokensPerSecond(): number | null {
    return this.#speed.tokensPerSecond;
  }

  /** Process id of the child, null while there is none. */
  get pid(): number | null {
    return this.#process()?.pid ?? null;
  }

  get load(): { readonly inFlight: number; readonly queued: number; readonly engineAgeMs: number } {
    const { inFlight, queued } = this.#admission;
    const engineAgeMs = inFlight === 0 ? 0 : Math.round(this.#watch?.ageMs(this.#components.clock.now()) ?? 0);
    return { inFlight, queued, engineAgeMs };
  }

  /**
   * Queues a request and starts the child if need be. `cancel` the answer when nobody reads it any more.
   *
   * @throws MeshError `overloaded`, `engine_failed`, `out_of_memory` or `draining` when it cannot be taken.
   */
  submit(request: GenerationRequest): Answer {
    this.#refuseUnavailable();
    const { clock } = this.#components;
    const answer = new Answer({ clock, progress: () => this.#progress() }, request);
    this.#admission.enqueue(answer);
    if (this.#phase.name === 'off') this.#start();
    this.#pump();
    return answer;
  }

  /** Ends an answer early, with `error`. Its slot is free after the step that may be running. */
  cancel(answer: Answer, error: MeshError): void {
    answer.fail(error);
    const id = this.#admission.withdraw(answer);
    if (id !== null) this.#process()?.send({ type: 'cancel', id });
  }

  /** Fails what runs and waits, and kills the child. Final. */
  async stop(): Promise<void> {
    const process = this.#process();
    if (this.#phase.name === 'resting') this.#phase.cancel();
    this.#phase = { name: 'stopped' };
    this.#stopWatching();
    const error = new MeshError('draining', 'This node is shutting down.');
    this.#admission.failRunning(error);
    this.#admission.failQueued(error);
    await process?.kill();
  }

  /** Takes no more requests, finishes those it has, then stops. */
  async retire(): Promise<void> {
    await this.#admission.idle();
    await this.stop();
  }

  #process(): EngineProcess | null {
    return 'process' in this.#phase ? this.#phase.process : null;
  }

  #refuseUnavailable(): void {
    const phase = this.#phase;
    if (phase.name === 'stopped') throw new MeshError('draining', 'This node is shutting down.');
    if (phase.name !== 'resting') return;
    const retryAfterMs = phase.notBefore - this.#components.clock.now();
    if (retryAfterMs > WORTH_WAITING_MS) {
      throw new MeshError(phase.error.code, phase.error.message, { retryAfterMs: Math.ceil(retryAfterMs) });
    }
  }

  #start(): void {
    const { clock, logger, file, onChange } = this.#components;
    const { gpu, contextTokens, parallel, wedgedAfterMs } = this.#options;
    const { id, path } = file();
    this.#verdict = null;
    const process = new EngineProcess({
      logger: logger.child({ model: id }),
      onMessage: (message) => this.#receive(process, message),
      onExit: (how) => this.#exited(process, how),
    });
    this.#phase = { name: 'loading', process, since: clock.now(), fraction: null };
    const bounds = {
      tickMs: BEAT_PERIOD_MS,
      silenceMs: wedgedAfterMs,
      loadingSilenceMs: LOADING_SILENCE_MS,
      stepMs: LONGEST_STEP_MS,
    };
    this.#watch = new BeatWatch(bounds, clock.now());
    this.#stopWatching = clock.every(BEAT_PERIOD_MS, () => this.#lookAt(process));
    process.send({ type: 'load', modelPath: path, gpu, contextTokens, parallel });
    onChange();
  }

  #pump(): void {
    if (this.#phase.name !== 'ready' || this.#verdict !== null) return;
    for (let next = this.#admission.admit(); next !== null; next = this.#admission.admit()) {
      this.#phase.process.send({ type: 'generate', id: next.id, request: next.answer.request });
    }
  }

  #receive(process: EngineProcess, message: FromChild): void {
    const { clock } = this.#components;
    if (process !== this.#process()) return;
    if (message.type === 'beat') this.#watch?.beat(clock.now(), message.ageMs);
    else if (message.type === 'step') this.#step(message.outputs);
    else if (message.type === 'accepted') this.#admission.running(message.id)?.accept(this.#accepted(message));
    else if (message.type === 'refused') {
      const { id, code, message: text, param } = message;
      this.#admission.running(id)?.fail(new MeshError(code, text, param === undefined ? {} : { param }));
      this.#free(id);
    } else if (message.type === 'released') this.#free(message.id);
    else if (message.type === 'failed') this.#verdict = new MeshError(message.code, message.message);
    else this.#loadingOrReady(process, message);
  }

  #loadingOrReady(process: EngineProcess, message: FromChild & { type: 'loading' | 'ready' }): void {
    const { clock, file, onEvent, onChange } = this.#components;
    const model = file().id;
    if (this.#phase.name !== 'loading') return;
    if (message.type === 'loading') {
      this.#phase.fraction = message.fraction;
      onEvent({ type: 'loading', model, fraction: message.fraction });
      return;
    }
    const loadMs = Math.round(clock.now() - this.#phase.since);
    this.#phase = { name: 'ready', process, contextTokens: message.contextTokens };
    onEvent({ type: 'resident', model, loadMs });
    onChange();
    this.#pump();
  }

  #step(outputs: readonly StepOutput[]): void {
    this.#watch?.stepped(this.#components.clock.now());
    for (const output of outputs) {
      this.#admission.running(output.id)?.step(output);
      if (output.end === undefined) continue;
      this.#speed.measured(output.end.completionTokens, output.end.timings.predictedMs);
      this.#free(output.id);
    }
  }

  #free(id: number): void {
    this.#admission.free(id);
    this.#pump();
  }

  #accepted(message: FromChild & { type: 'accepted' }): AcceptedEvent {
    const { fingerprint, file } = this.#components;
    const { promptTokens, promptDigest } = message;
    return { type: 'accepted', node: fingerprint, promptTokens, promptDigest, artifact: file().digest };
  }

  #progress(): ProgressEvent {
    const loading = this.#phase.name === 'loading' ? this.#phase : null;
    if (loading === null) return { type: 'progress', state: 'queued', fraction: null };
    return { type: 'progress', state: 'loading', fraction: loading.fraction };
  }

  #lookAt(process: EngineProcess): void {
    const working = this.#admission.inFlight > 0 ? 'busy' : 'idle';
    const state = this.#phase.name === 'loading' ? 'loading' : working;
    if (this.#watch?.tick(this.#components.clock.now(), state) !== true) return;
    this.#stopWatching();
    this.#verdict = new MeshError('wedged', 'The engine stopped responding and is being restarted.');
    this.#admission.failRunning(this.#verdict);
    void process.kill();
  }

  #exited(process: EngineProcess, how: string): void {
    if (process !== this.#process()) return;
    this.#stopWatching();
    const { clock, logger, file, onEvent, onChange } = this.#components;
    const model = file().id;
    const error = this.#verdict ?? new MeshError('engine_failed', `The engine process of "${model}" ended: ${how}.`);
    const wasReady = this.#phase.name === 'ready';
    const now = clock.now();
    const { notBefore, quarantined } = this.#policy.failed(now);
    const reason = quarantined ? quarantine(error) : error;
    logger.warn({ model, how, error: error.message, restartInMs: notBefore - now }, 'engine process ended');
    // One that ran before comes back by itself; one that never loaded waits to be asked.
    const cancel = clock.after(notBefore - now, () => this.#rested(wasReady && !quarantined));
    this.#phase = { name: 'resting', notBefore, error: reason, cancel };
    this.#admission.failRunning(reason);
    if (!wasReady || notBefore - now > WORTH_WAITING_MS) this.#admission.failQueued(reason);
    onEvent({ type: 'failed', model, message: reason.message });
    onChange();
  }

  #rested(startNow: boolean): void {
    this.#phase = { name: 'off' };
    if (startNow || this.#admission.queued > 0) this.#start();
  }
}

function quarantine(error: MeshError): MeshError {
  const code = error.code === 'out_of_memory' ? error.code : 'engine_failed';
  return new MeshError(code, `${error.message} It failed three times in five minutes and is left alone for a while.`);
}
