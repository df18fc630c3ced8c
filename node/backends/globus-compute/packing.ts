/**
 * Arguments and results as Globus Compute carries them: buffers with a two-digit serializer and a length. Only its
 * serializer of plain JSON can be spoken here; the others hold Python objects.
 */
import { MeshError } from '../../common/errors.ts';
import { parseJson } from '../openai-http/parse-json.ts';

/** Its name, as `result_serializers` of a submit wants it. */
export const JSON_SERIALIZER = 'globus_compute_sdk.serialize.JSONData';
const JSON_HEADER = '11\n';
const HEADER = /^(\d\d)\n/;

/** The arguments of one call. Lengths count code points, as Python's `len` does. */
export function packArguments(args: readonly unknown[], kwargs: Readonly<Record<string, unknown>> = {}): string {
  return [args, kwargs].map((value) => withLength(`${JSON_HEADER}${JSON.stringify(value)}`)).join('');
}

/**
 * The value that a function returned.
 *
 * @throws MeshError `upstream_error` that says what to do when it was packed by another serializer, or is damaged.
 */
export function unpackResult(packed: string, name: string): unknown {
  const header = HEADER.exec(packed)?.[1];
  if (header === undefined) throw broken(name, 'gave a result without a serializer');
  if (`${header}\n` !== JSON_HEADER) {
    throw broken(
      name,
      `packed its result for Python only (serializer ${header}): its endpoint must honour result_serializers, which globus-compute-endpoint does from 3.0 on`,
    );
  }
  const value = parseJson(packed.slice(JSON_HEADER.length));
  if (value === undefined) throw broken(name, 'gave a damaged result');
  return value;
}

function withLength(buffer: string): string {
  return `${codePoints(buffer)}\n${buffer}`;
}

/** Without the copy that spreading a long text would make. */
function codePoints(text: string): number {
  let count = text.length;
  for (let at = 0; at < text.length; at += 1) {
    if ((text.codePointAt(at) ?? 0) > 0xffff) {
      count -= 1;
      at += 1;
    }
  }
  return count;
}

const broken = (name: string, problem: string): MeshError => new MeshError('upstream_error', `${name} ${problem}`);
