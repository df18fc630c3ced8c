/** From a body's bytes to JSON that a schema can check. */
import { MeshError } from '../../../node/common/errors.ts';
import { scanJson } from './json-scan.ts';

/**
 * The JSON of a body, with explicit nulls of its own fields taken out: they are the same as absent.
 *
 * @throws MeshError `invalid_request` without any of the body's text: prompts do not belong in errors.
 */
export function bodyJson(bytes: Uint8Array): unknown {
  const body = parseJson(bytes);
  if (!isRecord(body)) return body;
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null));
}

/** The refusal of a field, named the way a client wrote it: `input[3]`. */
export function invalidField(param: string, rule: string): MeshError {
  return new MeshError('invalid_request', `Invalid value for '${param}': ${rule}.`, { param });
}

/** A JSON object, as opposed to an array, null or a scalar. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function parseJson(bytes: Uint8Array): unknown {
  // From peers and from files too: what nests too deep ends in an overflowing stack wherever it is written again.
  scanJson(bytes);
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new MeshError('invalid_request', 'The request body is not valid UTF-8.');
  }
  try {
    return JSON.parse(text);
  } catch (thrown) {
    // The parser's own message quotes the body.
    const position = /at position (\d+)/.exec((thrown as Error).message)?.[1];
    const where = position === undefined ? '' : ` (at character ${position})`;
    throw new MeshError('invalid_request', `The request body is not valid JSON${where}.`);
  }
}
