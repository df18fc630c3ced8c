/** Bodies of the node's own API: small JSON objects, checked against a schema. */
import type { FastifyRequest } from 'fastify';
import type { Static, TSchema } from 'typebox';
import Value from 'typebox/value';
import { scanJson } from '../../protocols/inference/bodies/json-scan.ts';
import { MeshError } from '../common/errors.ts';

/** Routes that take such a body refuse a larger one with 413. */
export const SMALL_BODY_BYTES = 64 * 1024;

/**
 * The request's body as its schema says.
 *
 * @throws MeshError `invalid_request` that names the first field that is wrong; `expected` says by field what it may be.
 */
export function smallBody<T extends TSchema>(
  request: FastifyRequest,
  schema: T,
  expected: Readonly<Record<string, string>>,
): Static<T> {
  const json = parse(request.body);
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw refusal('Send one JSON object.');
  const fields = Object.keys(expected);
  for (const [name, value] of Object.entries(json)) {
    if (!fields.includes(name))
      throw refusal(`There is no field ${quoted(name)} here, only ${fields.join(', ')}.`, name.slice(0, 64));
    if (!Value.Check(schema, { [name]: value }))
      throw refusal(`${name} is ${quoted(value)}: expected ${expected[name]}.`, name);
  }
  return json as Static<T>;
}

function parse(body: unknown): unknown {
  if (!(body instanceof Uint8Array) || body.length === 0) throw refusal('The request has no body. Send a JSON object.');
  scanJson(body);
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body)) as unknown;
  } catch {
    throw refusal('The body is not valid JSON in UTF-8.');
  }
}

function quoted(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing';
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}

const refusal = (message: string, param?: string): MeshError =>
  new MeshError('invalid_request', message, param === undefined ? {} : { param });
