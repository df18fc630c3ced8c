/** What the dispatcher knows of one request on its way. */
import type { MeshError } from '../common/errors.ts';
import type { BrokenAnswer } from './broken-answer.ts';
import type { Candidate } from './candidate.ts';
import type { DispatchOptions } from './dispatch.ts';
import type { ModelChain } from './model-chain.ts';
import type { Progress } from './progress.ts';
import type { RequestTrace } from './request-log.ts';
import type { LoadBalancing } from './settings.ts';

export interface Run {
  readonly chain: ModelChain;
  readonly options: DispatchOptions;
  readonly trace: RequestTrace;
  readonly progress: Progress;
  readonly loadBalancing: LoadBalancing;
  /** Backends that failed this request for the model that is asked now. */
  readonly tried: Set<string>;
  /** The last failure; null before one. */
  failure: MeshError | null;
  /** Why an earlier model of the chain did not answer; null while none was refused. */
  refusal: MeshError | null;
  /** The attempt that began last. */
  last: { readonly candidate: Candidate; readonly startedAt: number } | null;
  /** Did the attempt that began last go on with the answer of another? */
  hasGoneOn: boolean;
  /** Failed attempts that cost something, for the model that is asked now. */
  costly: number;
  /** Set while the answer is to go on elsewhere; the next attempt does. */
  broken: BrokenAnswer | null;
}
