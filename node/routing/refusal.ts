/** Why a request gets no answer when nobody can be asked. */
import type { Boundary } from '../../protocols/inference/events.ts';
import { ERROR_TABLE, MeshError } from '../common/errors.ts';
import type { NoSelection } from './selector.ts';

/** Clients that come back sooner find the same. */
const SOONEST_RETRY_MS = 1000;

const MEANING: Readonly<Record<Exclude<Boundary, 'public'>, string>> = {
  local: 'this node only',
  mesh: 'this node and its peers',
  'private-cluster': 'this node, its peers and private clusters',
};

export interface RefusedRequest {
  readonly model: string;
  readonly boundary: Boundary;
  /** May requests leave this node at all? */
  readonly loadBalancing: boolean;
}

/** `overloaded` when waiting helps soon, `all_circuits_open`, or `model_not_available`. Pure. */
export function refusalOf(request: RefusedRequest, none: NoSelection): MeshError {
  const { model } = request;
  if (none.within === 0) return new MeshError('model_not_available', unavailable(request), { param: 'model' });
  const retryAfterMs = Math.max(SOONEST_RETRY_MS, none.retryInMs);
  if (none.coolingOff) {
    return new MeshError('overloaded', `Every node that serves '${model}' is busy; try again shortly`, {
      retryAfterMs,
    });
  }
  const message = `Every node that serves '${model}' has failed repeatedly; try again shortly`;
  return new MeshError('all_circuits_open', message, { param: 'model', retryAfterMs });
}

function unavailable({ model, boundary, loadBalancing }: RefusedRequest): string {
  if (boundary !== 'public') {
    return `Model '${model}' is not available within the boundary '${boundary}' (${MEANING[boundary]})`;
  }
  if (!loadBalancing) {
    return `Model '${model}' is not on this node, and load balancing is off; set loadBalancing.enabled to ask others`;
  }
  return `Model '${model}' is not available on this node or any reachable peer; GET /v1/models lists what is`;
}

/** The failure as it was, for a client that must not try again: others fail as well, and retries would add to it. */
export function withoutRetry(failure: MeshError): MeshError {
  return new MeshError(failure.code, failure.message, { ...failure.facts, retryable: false, cause: failure });
}

/** A failure after commit is a lost answer, whatever broke it: nobody could go on with it. */
export function lostAnswer(cause: MeshError): MeshError {
  if (ERROR_TABLE[cause.code].breaker !== 'failure' || cause.code === 'peer_lost') return cause;
  return new MeshError('peer_lost', `The node that was answering was lost: ${cause.message}`, { cause });
}
