/** What the service says of one task, and what that means: pure. */
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import { MeshError } from '../../common/errors.ts';
import { parseJson } from '../openai-http/parse-json.ts';
import { errorOfRefusal } from '../openai-http/upstream-errors.ts';
import { unpackResult } from './packing.ts';

/** A task that ended. `exception`: the Python traceback. */
export type TaskReport =
  | { readonly taskId: string; readonly result: string }
  | { readonly taskId: string; readonly exception: string };

/** FIRST's function says so when the model server refused: status, body, headers, each on its line. */
const REFUSED =
  /API request failed with status code: (\d{3})(?:(?:\n|\\n)Response text: ([\s\S]*?)(?=(?:\n|\\n)Response (?:headers|time): |$))?/g;
/** The end of a traceback says what happened. */
const MAX_TRACEBACK_CHARS = 1024 * 1024;
const UNREACHABLE = /Network error occurred|ConnectionError|Connection refused|ConnectTimeout/;
const EXCEPTION = /^([A-Za-z_][\w.]{0,99})(?=:|$)/;

/** The tasks of a `batch_status` answer that have ended; whatever else it says of others means that they go on. */
export function readReports(json: Readonly<Record<string, unknown>>): readonly TaskReport[] {
  const { results } = json;
  if (!isRecord(results)) throw new MeshError('upstream_error', 'Globus Compute gave no results of its tasks');
  return Object.entries(results).flatMap(([taskId, task]): readonly TaskReport[] => {
    if (!isRecord(task)) return [];
    const { status, result, exception, reason } = task;
    if (status === 'failed') return [{ taskId, exception: firstText(exception, reason) }];
    if (status !== 'success') return [];
    if (typeof result === 'string') return [{ taskId, result }];
    return [{ taskId, exception: firstText(exception, reason, 'the result of the task is gone') }];
  });
}

/**
 * The text that FIRST's function returned: it packs JSON into a string, which is packed as JSON again.
 *
 * @throws MeshError what the model server refused with, or `upstream_error`. Tracebacks may quote the prompt: only the
 *   kind of exception is said.
 */
export function resultText(report: TaskReport, name: string): string {
  if ('exception' in report) throw failureOf(report.exception, name);
  const value = unpackResult(report.result, name);
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  const inner = parseJson(text);
  if (isRecord(inner) && inner['streaming'] === true && inner['status'] === 'error') {
    throw failureOf(typeof inner['error'] === 'string' ? inner['error'] : '', name);
  }
  return text;
}

/** What a traceback, or the text that a function gave for an error, means. */
export function failureOf(text: string, name: string): MeshError {
  const traceback = text.slice(-MAX_TRACEBACK_CHARS);
  const refused = [...traceback.matchAll(REFUSED)].at(-1);
  if (refused !== undefined) {
    const [, status, body = ''] = refused;
    return errorOfRefusal({ name, status: Number(status), headers: {}, body: body.trim(), nowMs: 0 });
  }
  if (UNREACHABLE.test(traceback)) {
    return new MeshError('upstream_error', `${name}: its model server did not answer the function`);
  }
  const kind = EXCEPTION.exec(traceback.trimEnd().split('\n').at(-1)?.trim() ?? '')?.[1];
  return new MeshError('upstream_error', `${name}: its function failed${kind === undefined ? '' : ` (${kind})`}`);
}

const firstText = (...values: readonly unknown[]): string =>
  values.find((value): value is string => typeof value === 'string' && value !== '') ?? '';
