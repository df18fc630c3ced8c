/** The engine child's inside: takes orders, keeps slots, lets the scheduler step, reports. */
import { MeshError, toMeshError } from '../../../common/errors.ts';
import type { FromChild, LaneOrder, LoadOrder, StepOutput, ToChild } from '../ipc.ts';
import { promptDigest } from '../prompt/prompt-tokens.ts';
import type { EngineTask } from '../tasks/engine-task.ts';
import { type TaskModel, TaskRunner } from '../tasks/engine-task-runner.ts';
import { Lane } from './lane.ts';
import { BATCH_TOKENS, type NativeModel } from './native-model.ts';
import { needsSequence, type PreparedOrder, prepareOrder, scoresPrompt } from './prepared-order.ts';
import { Slots } from './slots.ts';
import { StepScheduler } from './step-scheduler.ts';

const CPU_SLICE_TOKENS = 64;
const LAST_SLICE_TOKENS = 128;
const GPU_SLICE_TOKENS = 512;
const BUSY_PREFILL_TOKENS = 256;
const YIELDING_CPU_TOKENS = 64;
const YIELDING_GPU_TOKENS = 256;
/** A batch task goes on after this time at the latest, whoever else is served. */
const BATCH_TASK_REST_MS = 2000;

export interface HostComponents {
  readonly load: (order: LoadOrder, onProgress: (fraction: number) => void) => Promise<NativeModel>;
  readonly send: (message: FromChild) => void;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
}

/** What one loaded model needs to answer. */
interface Loaded {
  readonly model: NativeModel;
  readonly slots: Slots;
  readonly scheduler: StepScheduler<Lane>;
  readonly tasks: TaskRunner;
}

export class EngineHost {
  readonly #components: HostComponents;
  readonly #lanes = new Map<number, Lane>();
  /** Orders that are being prepared, and tasks. */
  readonly #aborts = new Map<number, AbortController>();
  readonly #onRound: (() => void)[] = [];
  #loaded: Loaded | null = null;
  #lastStepAt = 0;

  constructor(components: HostComponents) {
    this.#components = components;
  }

  /** Milliseconds since a step was last finished, 0 without work. */
  get ageMs(): number {
    return this.#lanes.size === 0 ? 0 : Math.round(this.#components.now() - this.#lastStepAt);
  }

  /**
   * Carries out one order. Only loading can fail.
   *
   * @throws MeshError when the model cannot be loaded.
   */
  async receive(message: ToChild): Promise<void> {
    if (message.type === 'load') await this.#load(message);
    else if (message.type === 'cancel') this.#cancel(message.id);
    else if (message.type === 'task') await this.#answer(message.id, (signal) => this.#task(message, signal));
    else await this.#answer(message.id, (signal) => this.#generate(message.id, message.order, signal));
  }

  async #load(order: LoadOrder): Promise<void> {
    const { load, send, now } = this.#components;
    const model = await load(order, (fraction) => send({ type: 'loading', fraction }));
    const scheduler = new StepScheduler<Lane>(
      { onRound: (stepped) => this.#report(stepped), now },
      {
        sliceTokens: model.usesGpu ? GPU_SLICE_TOKENS : CPU_SLICE_TOKENS,
        lastSliceTokens: model.usesGpu ? GPU_SLICE_TOKENS : LAST_SLICE_TOKENS,
        busyPrefillTokens: BUSY_PREFILL_TOKENS,
        batchTokens: BATCH_TOKENS,
        yieldingPrefillTokens: model.usesGpu ? YIELDING_GPU_TOKENS : YIELDING_CPU_TOKENS,
      },
    );
    const tasks = new TaskRunner({ model: taskModel(model), now });
    this.#loaded = { model, slots: new Slots(model.sequences), scheduler, tasks };
    send({ type: 'ready', contextTokens: model.contextTokens });
  }

  /** Every order gets exactly one end: what `work` sends, a refusal, or the word that it was cancelled. */
  async #answer(id: number, work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const { send } = this.#components;
    const abort = new AbortController();
    this.#aborts.set(id, abort);
    try {
      await work(abort.signal);
    } catch (thrown) {
      if (abort.signal.aborted) {
        send({ type: 'released', id, completionTokens: 0 });
        return;
      }
      const { code, message, facts } = toMeshError(thrown, 'engine_failed');
      send({ type: 'refused', id, code, message, ...(facts.param === undefined ? {} : { param: facts.param }) });
    } finally {
      this.#aborts.delete(id);
    }
  }

  async #task({ id, task }: { id: number; task: EngineTask }, signal: AbortSignal): Promise<void> {
    const rest = task.isBatch === true ? () => this.#awaitedRest() : undefined;
    const result = await this.#ready().tasks.run(task, signal, rest);
    signal.throwIfAborted();
    this.#components.send({ type: 'result', id, result });
  }

  async #generate(id: number, order: LaneOrder, signal: AbortSignal): Promise<void> {
    const prepared = await prepareOrder(order, this.#ready().model);
    signal.throwIfAborted();
    if (needsSequence(prepared)) await this.#begin(id, prepared, signal);
    else this.#settle(id, prepared);
  }

  async #begin(id: number, prepared: PreparedOrder, signal: AbortSignal): Promise<void> {
    const { model, slots, scheduler } = this.#ready();
    const { order, prompt, output, grammar } = prepared;
    const { sampling, logprobs, resumed } = order;
    const slot = slots.acquire([...prompt, ...resumed]);
    const sequence = slot === null ? undefined : model.sequences[slot.index];
    if (slot === null || sequence === undefined) {
      throw new MeshError('internal_error', 'The engine has no free sequence.');
    }
    try {
      const heldTokens = await sequence.keep(scoresPrompt(order) ? 0 : slot.reusedTokens);
      signal.throwIfAborted();
      const lane = new Lane(
        { sequence, output, grammar, now: this.#components.now },
        {
          id,
          arrival: id,
          prompt,
          resumed,
          heldTokens,
          sampling,
          logprobs,
          scoresPrompt: scoresPrompt(order),
          onlyScores: order.maxTokens === 0,
          isBatch: order.isBatch === true,
        },
      );
      if (this.#lanes.size === 0) this.#lastStepAt = this.#components.now();
      this.#lanes.set(id, lane);
      this.#accept(id, prompt);
      scheduler.add(lane);
    } catch (thrown) {
      slots.release(slot.index);
      throw thrown;
    }
  }

  /** The end of an order that evaluates nothing. */
  #settle(id: number, { order, prompt, output }: PreparedOrder): void {
    this.#accept(id, prompt);
    if (output.finish === null) output.end('length');
    if (scoresPrompt(order)) output.promptScored([null]);
    const end = {
      finish: output.finish ?? 'length',
      promptTokens: prompt.length,
      completionTokens: 0,
      reasoningTokens: output.reasoningTokens,
      cachedTokens: 0,
      timings: { promptMs: 0, predictedMs: 0 },
    };
    const released = output.report() ?? { tokens: [], text: '' };
    this.#components.send({ type: 'step', outputs: [{ id, ...released, end }] });
  }

  #accept(id: number, prompt: readonly number[]): void {
    const { send } = this.#components;
    send({ type: 'accepted', id, promptTokens: prompt.length, promptDigest: promptDigest(prompt) });
  }

  #cancel(id: number): void {
    this.#lanes.get(id)?.cancel();
    this.#aborts.get(id)?.abort();
  }

  #report(stepped: readonly Lane[]): void {
    const { send, now } = this.#components;
    this.#lastStepAt = now();
    for (const resolve of this.#onRound.splice(0)) resolve();
    const outputs: StepOutput[] = [];
    for (const lane of stepped) {
      const { id, failure } = lane;
      if (lane.finished) this.#leave(lane);
      if (failure !== null) send({ type: 'refused', id, ...failure });
      else if (lane.cancelled) send({ type: 'released', id, completionTokens: lane.generatedTokens });
      else {
        const output = lane.output();
        if (output !== null) outputs.push(output);
      }
    }
    if (outputs.length > 0) send({ type: 'step', outputs });
  }

  /** Resolves when no answer runs that somebody waits for, a bounded time later at most. */
  async #awaitedRest(): Promise<void> {
    const { now } = this.#components;
    const until = now() + BATCH_TASK_REST_MS;
    const { scheduler } = this.#ready();
    // Rounds follow each other as long as somebody waits, so that each wait has its end.
    while (scheduler.isAwaited && now() < until) {
      await new Promise<void>((resolve) => {
        this.#onRound.push(resolve);
      });
    }
  }

  #leave(lane: Lane): void {
    this.#lanes.delete(lane.id);
    this.#loaded?.slots.release(lane.sequenceId, lane.isBatch);
  }

  #ready(): Loaded {
    if (this.#loaded === null) throw new MeshError('engine_failed', 'The model is not loaded yet.');
    return this.#loaded;
  }
}

function taskModel(model: NativeModel): TaskModel {
  const { contextTokens, vocabulary, tasks, template } = model;
  return {
    contextTokens,
    tokenizer: vocabulary.tokenizer,
    tasks,
    segmentsOf: ({ messages, tools }) => template.render(messages, tools).segments,
  };
}
