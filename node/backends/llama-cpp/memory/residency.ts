/** Whose model gives way when another one is to be loaded: decided from needs, use and pins. Pure. */

/** A model that has memory now. */
export interface Resident {
  readonly model: string;
  readonly needBytes: number;
  /** `busy`: loading, answering, or with requests waiting; `leaving`: its child is about to be gone. */
  readonly state: 'idle' | 'busy' | 'leaving';
  /** Never evicted. */
  readonly pinned: boolean;
  /** When its last answer ended; any clock. */
  readonly lastUsedAt: number;
}

export interface RoomQuestion {
  readonly needBytes: number;
  /** For all models together. */
  readonly budgetBytes: number;
  readonly residents: readonly Resident[];
}

export type RoomDecision =
  /** It fits now. */
  | { readonly type: 'load' }
  /** It fits once these are gone, least recently used first; no more of them than are needed. */
  | { readonly type: 'evict'; readonly models: readonly string[] }
  /** It fits once models that are busy or leaving are gone. */
  | { readonly type: 'wait' }
  /** It cannot fit beside the pinned ones, whatever else goes. */
  | { readonly type: 'never'; readonly pinnedBytes: number };

export function decideRoom({ needBytes, budgetBytes, residents }: RoomQuestion): RoomDecision {
  const pinnedBytes = sum(residents.filter((resident) => resident.pinned && resident.state !== 'leaving'));
  if (needBytes > budgetBytes - pinnedBytes) return { type: 'never', pinnedBytes };
  let missingBytes = needBytes - (budgetBytes - sum(residents));
  if (missingBytes <= 0) return { type: 'load' };
  // What is leaving anyway need not be made up for by others.
  missingBytes -= sum(residents.filter(({ state }) => state === 'leaving'));
  const models: string[] = [];
  const idle = residents.filter(({ state, pinned }) => state === 'idle' && !pinned);
  for (const { model, needBytes: freedBytes } of idle.toSorted((a, b) => a.lastUsedAt - b.lastUsedAt)) {
    if (missingBytes <= 0) break;
    models.push(model);
    missingBytes -= freedBytes;
  }
  // Nobody is evicted for a load that has to wait for a busy model all the same.
  return missingBytes <= 0 && models.length > 0 ? { type: 'evict', models } : { type: 'wait' };
}

function sum(residents: readonly Resident[]): number {
  return residents.reduce((bytes, { needBytes }) => bytes + needBytes, 0);
}
