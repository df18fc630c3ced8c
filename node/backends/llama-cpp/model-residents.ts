/** The models here and their places in memory, for people to see and to change: `ResidencyControl` of the engine. */
import { MeshError } from '../../common/errors.ts';
import type { ModelResidency, ResidencyControl } from '../backend.ts';
import type { MemoryRoom } from './memory/memory-room.ts';
import type { ModelEngine } from './model-engine.ts';

export interface ModelResidentsComponents {
  readonly room: MemoryRoom;
  /** Ids of pinned models; changed here. */
  readonly pinned: Set<string>;
  /** Of all model files. */
  readonly ids: () => readonly string[];
  /** The engine of a model, made when there is none yet. @throws MeshError `model_not_loaded` or `draining`. */
  readonly engine: (model: string) => ModelEngine;
}

export class ModelResidents implements ResidencyControl {
  readonly #components: ModelResidentsComponents;

  constructor(components: ModelResidentsComponents) {
    this.#components = components;
  }

  get budgetBytes(): number {
    return this.#components.room.budgetBytes;
  }

  list(): readonly ModelResidency[] {
    const { ids, pinned, engine } = this.#components;
    return ids().map((model) => {
      const { life, load } = engine(model);
      const { state, need, unloadInMs, problem } = life;
      const { inFlight, queued } = load;
      return {
        model,
        state,
        pinned: pinned.has(model),
        need,
        inFlight,
        queued,
        unloadInMs: unloadInMs === null ? null : Math.round(unloadInMs),
        problem: problem?.message ?? null,
      };
    });
  }

  loadModel(model: string): void {
    this.#components.engine(model).life.want();
  }

  unloadModel(model: string): void {
    const { engine, pinned } = this.#components;
    const { life } = engine(model);
    if (pinned.has(model)) {
      throw new MeshError('invalid_request', `"${model}" is pinned: unpin it before it can be unloaded.`, {
        param: 'model',
      });
    }
    life.unwant();
  }

  pinModel(model: string, isPinned: boolean): void {
    const { engine, pinned } = this.#components;
    const { life } = engine(model);
    if (isPinned) pinned.add(model);
    else pinned.delete(model);
    life.pinChanged();
  }
}
