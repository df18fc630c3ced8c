/** The names of one request: what its client calls it, and what the mesh does. */
import { randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';

const VISIBLE_ASCII = /^[\x21-\x7e]{1,128}$/;

/** The `x-request-id` of the answer: the client's own when it is visible ASCII of at most 128, else `req_<32 hex>`. */
export function newHeaderId(request: IncomingMessage): string {
  return clientId(request) ?? `req_${randomBytes(16).toString('hex')}`;
}

/** 32 hex digits, unique even when two requests carry the same client-given id. */
export function requestIdOf(request: IncomingMessage, headerId: string): string {
  return clientId(request) === null ? headerId.slice('req_'.length) : randomBytes(16).toString('hex');
}

/** A seed for requests that name none: 0 to 2^32-1. */
export function newSeed(): number {
  return randomBytes(4).readUInt32LE();
}

function clientId(request: IncomingMessage): string | null {
  const given = request.headers['x-request-id'];
  return typeof given === 'string' && VISIBLE_ASCII.test(given) ? given : null;
}
