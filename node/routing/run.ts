/** What the dispatcher knows of one request on its way. */
import type { InferenceRequest } from '../../protocols/inference/events.ts';
import type { MeshError } from '../common/errors.ts';
import type { BrokenAnswer } from './broken-answer.ts';
import type { DispatchOptions } from './dispatch.ts';
import type { Progress } from './progress.ts';
import type { RequestTrace } from './request-log.ts';
import type { LoadBalancing } from './settings.ts';

export interface Run {
  readonly request: InferenceRequest;
  readonly options: DispatchOptions;
  readonly trace: RequestTrace;
  readonly progress: Progress;
  readonly loadBalancing: LoadBalancing;
  /** Backends that failed this request. */
  readonly tried: Set<string>;
  /** The last failure; null before one. */
  failure: MeshError | null;
  /** Failed attempts that cost something. */
  costly: number;
  /** Set while the answer is to go on elsewhere; the next attempt does. */
  broken: BrokenAnswer | null;
}
