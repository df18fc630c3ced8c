/** Where one model is between a file on disk and an engine that answers. */
import type { ModelState } from '../../../protocols/catalog/catalog.ts';
import type { ProgressEvent } from '../../../protocols/inference/events.ts';
import type { CancelTimer } from '../../common/clock.ts';
import type { MeshError } from '../../common/errors.ts';
import type { MemoryNeed, UnloadReason } from '../backend.ts';
import type { Resident } from './memory/residency.ts';
import type { SupervisedChild } from './supervised-child.ts';

export type Phase =
  | { readonly name: 'off' }
  /** For memory; `abort` gives the wait up. */
  | { readonly name: 'waiting'; readonly abort: AbortController; readonly need: MemoryNeed }
  | {
      readonly name: 'loading';
      readonly child: SupervisedChild;
      readonly since: number;
      readonly need: MemoryNeed;
      fraction: number | null;
    }
  | {
      readonly name: 'ready';
      readonly child: SupervisedChild;
      readonly contextTokens: number;
      readonly need: MemoryNeed;
    }
  /** Its child was killed and is not gone yet. */
  | { readonly name: 'unloading'; readonly child: SupervisedChild; readonly reason: UnloadReason }
  /** After a failure: no start before `notBefore`; `error` is why. */
  | { readonly name: 'resting'; readonly notBefore: number; readonly error: MeshError; readonly cancel: CancelTimer }
  | { readonly name: 'stopped' };

/** As the mesh sees it. */
export function stateOf(phase: Phase): ModelState {
  if (phase.name === 'ready') return 'resident';
  return phase.name === 'loading' ? 'loading' : 'on-disk';
}

/** The child, as long as there is one. */
export function childOf(phase: Phase): SupervisedChild | null {
  return 'child' in phase ? phase.child : null;
}

/** As those who share the memory see it. */
export function useOf({ name }: Phase, isBusy: boolean): Resident['state'] {
  if (name === 'unloading' || name === 'stopped') return 'leaving';
  return name === 'ready' && !isBusy ? 'idle' : 'busy';
}

/** What an order waits for. */
export function progressOf(phase: Phase): ProgressEvent {
  if (phase.name !== 'loading') return { type: 'progress', state: 'queued', fraction: null };
  return { type: 'progress', state: 'loading', fraction: phase.fraction };
}
