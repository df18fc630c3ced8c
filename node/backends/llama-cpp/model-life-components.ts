/** What one model's life needs around it, and its options. */
import type { Clock } from '../../common/clock.ts';
import type { MeshError } from '../../common/errors.ts';
import type { Logger } from '../../common/logger.ts';
import type { ModelFile } from '../../storage/model-file.ts';
import type { EngineEvent } from '../backend.ts';
import type { OrderMessage } from './admission.ts';
import type { GpuChoice } from './ipc.ts';
import type { LoadWish } from './memory/load-plan.ts';
import type { MemoryRoom } from './memory/memory-room.ts';

/** What is asked of the model now. */
export interface Demand {
  /** Requests that run or wait, or have more to ask. */
  readonly isBusy: boolean;
  /** Orders that the child has. */
  readonly inFlight: number;
  /** Orders run or wait. */
  readonly isIdle: boolean;
}

export interface ModelLifeComponents {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly room: MemoryRoom;
  /** The file as it is known now: its digest may come later. */
  readonly file: () => ModelFile;
  /** Shall it always be loaded? */
  readonly isPinned: () => boolean;
  readonly demand: () => Demand;
  /** The child takes orders now. */
  readonly onReady: () => void;
  readonly onOrderMessage: (message: OrderMessage) => void;
  /** Orders that the child had are lost; those that wait fail too when it will not be back soon. */
  readonly onLost: (error: MeshError, orders: 'running' | 'waiting' | 'all') => void;
  readonly onEvent: (event: EngineEvent) => void;
  /** State or context changed. */
  readonly onChange: () => void;
}

export interface ModelLifeOptions extends LoadWish {
  readonly gpu: GpuChoice;
  readonly wedgedAfterMs: number;
  /** null: for ever. */
  readonly keepAliveMs: number | null;
}
