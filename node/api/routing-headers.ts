/** What a client may say about the way of its request, beside the body: how far it may travel. */
import type { IncomingHttpHeaders } from 'node:http';
import { BOUNDARIES, type Boundary } from '../../protocols/inference/events.ts';
import { MeshError } from '../common/errors.ts';

const BOUNDARY_HEADER = 'x-meshnode-boundary';
const HOPS_HEADER = 'x-meshnode-hops';
/** A request that came from another node is answered here or not at all. */
const MAX_HOPS = 1;

/**
 * How far the request may travel; null when its client set no limit.
 *
 * @throws MeshError `invalid_request` that names the header and what it may say: a limit that cannot be read must not
 *   count as none.
 */
export function boundaryOf(headers: IncomingHttpHeaders): Boundary | null {
  const limit = namedBoundary(headers[BOUNDARY_HEADER]);
  return hopsOf(headers[HOPS_HEADER]) >= MAX_HOPS ? 'local' : limit;
}

function namedBoundary(given: string | string[] | undefined): Boundary | null {
  if (given === undefined) return null;
  const known = BOUNDARIES.find((boundary) => boundary === given);
  if (known !== undefined) return known;
  throw new MeshError('invalid_request', `${BOUNDARY_HEADER} must be one of ${BOUNDARIES.join(', ')}.`, {
    param: BOUNDARY_HEADER,
  });
}

function hopsOf(given: string | string[] | undefined): number {
  if (given === undefined) return 0;
  const hops = typeof given === 'string' && /^\d{1,3}$/.test(given) ? Number(given) : Number.NaN;
  if (hops <= MAX_HOPS) return hops;
  const why = Number.isNaN(hops) ? 'must be a whole number' : `is ${hops}: requests travel ${MAX_HOPS} hop at most`;
  throw new MeshError('invalid_request', `${HOPS_HEADER} ${why}.`, { param: HOPS_HEADER });
}
