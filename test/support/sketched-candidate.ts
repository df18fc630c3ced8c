/** Candidates from a few words, for tests of ordering and choosing. */
import assert from 'node:assert/strict';
import type { BackendKind } from '../../node/backends/backend.ts';
import type { Candidate } from '../../node/routing/candidate.ts';
import type { CatalogEntry, ModelState } from '../../protocols/catalog/catalog.ts';
import type { Boundary } from '../../protocols/inference/events.ts';

export interface Sketch {
  readonly id: string;
  readonly kind?: BackendKind;
  readonly state?: ModelState;
  readonly suspect?: boolean;
  readonly active?: number;
  readonly reported?: number;
  readonly asked?: number;
  readonly slots?: number;
  readonly priority?: number;
  readonly boundary?: Boundary;
  readonly firstTokenMs?: number | null | undefined;
  readonly penalty?: number;
}

/** A catalog entry of model `m`. */
export const entryOf = (state: ModelState = 'resident', slots = 4): CatalogEntry => ({
  id: 'm',
  digest: null,
  quantization: null,
  contextLength: 512,
  sizeBytes: 1,
  state,
  slots,
  tokensPerSecond: null,
});

export function sketched(sketch: Sketch): Candidate {
  const { id, kind = 'peer', reported } = sketch;
  return {
    backend: { id, kind, infer: () => assert.fail('not asked to infer') },
    entry: entryOf(sketch.state, sketch.slots),
    suspect: sketch.suspect ?? false,
    load: reported === undefined ? null : { inFlight: reported, queued: 0, engineAgeMs: 0, draining: false },
    priority: sketch.priority ?? 0,
    boundary: sketch.boundary ?? (kind === 'engine' ? 'local' : 'mesh'),
    engineBuild: null,
    activeRequests: sketch.active ?? 0,
    lastAsked: sketch.asked ?? 0,
    firstTokenMs: sketch.firstTokenMs ?? null,
    penalty: sketch.penalty ?? 0,
  };
}
