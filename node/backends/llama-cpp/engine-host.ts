/** The engine child's inside: takes orders, keeps slots, lets the scheduler step, reports. */
import { MeshError, toMeshError } from '../../common/errors.ts';
import type { GenerationRequest, Prompt } from './generation-request.ts';
import type { FromChild, LoadOrder, StepOutput, ToChild } from './ipc.ts';
import { Lane } from './lane.ts';
import { BATCH_TOKENS, type NativeModel, type NativeSequence } from './native-model.ts';
import { OutputPipeline } from './output-pipeline.ts';
import { promptDigest, promptTokens } from './prompt-tokens.ts';
import { type SlotChoice, Slots } from './slots.ts';
import { StepScheduler } from './step-scheduler.ts';

const CPU_SLICE_TOKENS = 128;
const GPU_SLICE_TOKENS = 512;
const BUSY_PREFILL_TOKENS = 256;

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
}

/** A request with its slot. The sequence holds the prompt's first `cachedTokens`, and nothing else. */
interface Prepared {
  readonly sequence: NativeSequence;
  readonly prompt: readonly number[];
  readonly cachedTokens: number;
}

export class EngineHost {
  readonly #components: HostComponents;
  readonly #lanes = new Map<number, Lane>();
  /** Cancels that came while the request was being prepared. */
  readonly #cancelledEarly = new Set<number>();
  readonly #preparing = new Set<number>();
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
    else await this.#generate(message.id, message.request);
  }

  async #load(order: LoadOrder): Promise<void> {
    const { load, send } = this.#components;
    const model = await load(order, (fraction) => send({ type: 'loading', fraction }));
    const scheduler = new StepScheduler<Lane>(
      { onRound: (stepped) => this.#report(stepped) },
      {
        sliceTokens: model.usesGpu ? GPU_SLICE_TOKENS : CPU_SLICE_TOKENS,
        busyPrefillTokens: BUSY_PREFILL_TOKENS,
        batchTokens: BATCH_TOKENS,
      },
    );
    this.#loaded = { model, slots: new Slots(model.sequences), scheduler };
    send({ type: 'ready', contextTokens: model.contextTokens });
  }

  async #generate(id: number, request: GenerationRequest): Promise<void> {
    this.#preparing.add(id);
    let slot: SlotChoice | null = null;
    try {
      const { model, slots } = this.#ready();
      const prompt = renderPrompt(request.prompt, model);
      slot = slots.acquire(prompt);
      const sequence = slot === null ? undefined : model.sequences[slot.index];
      if (slot === null || sequence === undefined) {
        throw new MeshError('internal_error', 'The engine has no free sequence.');
      }
      const cachedTokens = await sequence.keep(slot.reusedTokens);
      this.#begin(id, request, { sequence, prompt, cachedTokens });
    } catch (thrown) {
      if (slot !== null) this.#loaded?.slots.release(slot.index);
      const { code, message, facts } = toMeshError(thrown, 'engine_failed');
      const param = facts.param === undefined ? {} : { param: facts.param };
      this.#components.send({ type: 'refused', id, code, message, ...param });
    } finally {
      this.#preparing.delete(id);
      this.#cancelledEarly.delete(id);
    }
  }

  #begin(id: number, request: GenerationRequest, { sequence, prompt, cachedTokens }: Prepared): void {
    const { send, now } = this.#components;
    const { model, slots, scheduler } = this.#ready();
    if (this.#cancelledEarly.has(id)) {
      slots.release(sequence.id);
      send({ type: 'released', id, completionTokens: 0 });
      return;
    }
    const { sampling, maxTokens } = request;
    const room = model.contextTokens - prompt.length;
    const lane = new Lane(
      {
        sequence,
        pipeline: new OutputPipeline(model.detokenize, request.stop),
        endsAnswer: (token) => model.endsAnswer(token),
        now,
      },
      { id, arrival: id, prompt, cachedTokens, sampling, maxTokens: Math.min(maxTokens ?? room, room) },
    );
    if (this.#lanes.size === 0) this.#lastStepAt = now();
    this.#lanes.set(id, lane);
    send({ type: 'accepted', id, promptTokens: prompt.length, promptDigest: promptDigest(prompt) });
    scheduler.add(lane);
  }

  #cancel(id: number): void {
    this.#lanes.get(id)?.cancel();
    if (this.#preparing.has(id)) this.#cancelledEarly.add(id);
  }

  #report(stepped: readonly Lane[]): void {
    const { send, now } = this.#components;
    this.#lastStepAt = now();
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

  #leave(lane: Lane): void {
    this.#lanes.delete(lane.id);
    this.#loaded?.slots.release(lane.sequenceId);
  }

  #ready(): Loaded {
    if (this.#loaded === null) throw new MeshError('engine_failed', 'The model is not loaded yet.');
    return this.#loaded;
  }
}

function renderPrompt(prompt: Prompt, model: NativeModel): number[] {
  const { contextTokens, tokenizer } = model;
  if ('text' in prompt) {
    const segments = prompt.text === '' ? [] : [{ text: prompt.text, special: false }];
    return promptTokens(segments, tokenizer, { contextTokens, kind: 'completion' });
  }
  return promptTokens(model.template.render(prompt.messages), tokenizer, { contextTokens, kind: 'chat' });
}
