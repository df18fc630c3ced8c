/** From an uploaded file to lines that are to be asked. */

import type { BatchError, BatchStore, NewLine, StoredBatch } from '../storage/batch-store.ts';
import { inputLines } from '../storage/batch-store-input.ts';
import {
  type BatchLineMistake,
  type BatchRequestLine,
  isMistake,
  lineIdentity,
  readBatchLine,
  unaskedLine,
} from './batch-line.ts';
import { nextTurn } from './batch-output.ts';

/** As at OpenAI. */
export const MOST_LINES = 50_000;
/** As large as a request over HTTP. */
const MOST_LINE_BYTES = 16 * 1024 * 1024;
/** Each is looked for on its own, again and again; OpenAI takes one. */
export const MOST_MODELS = 64;
/** Mistakes that a batch as a whole lists. */
const LISTED = 100;
/** Lines that are added at a time: the event loop waits for each. */
const ADDED_AT_ONCE = 100;

/**
 * Reads the input of a batch, from the beginning. A line that is no request gets its place in the error file at once.
 *
 * @returns what is wrong with the batch as a whole; null when there is something to ask.
 * @throws the signal's reason, and what reading the file throws.
 */
export async function readInput(
  store: BatchStore,
  { id, seq, endpoint, inputFileId }: StoredBatch,
  signal: AbortSignal,
): Promise<readonly BatchError[] | null> {
  store.forgetLines(seq);
  const mistakes: BatchError[] = [];
  const models = new Set<string>();
  let count = 0;
  let requests = 0;
  let added: NewLine[] = [];
  const flush = async (): Promise<void> => {
    const twice = store.addLines(seq, added);
    requests += added.filter(({ outcome }) => outcome === null).length - twice.length;
    const refused = twice.map((line) => note(line, duplicate(store.lineOf(seq, line.customId ?? '') ?? 0)));
    if (refused.length > 0) store.addLines(seq, refused);
    added = [];
    await nextTurn();
    signal.throwIfAborted();
  };
  const note = (line: Omit<NewLine, 'outcome' | 'customId'>, mistake: Omit<BatchError, 'line'>): NewLine => {
    if (mistakes.length < LISTED) mistakes.push({ ...mistake, line: line.line });
    const { code, message } = mistake;
    const { requestId } = lineIdentity(id, line.line);
    const outcome = unaskedLine({ requestId, customId: null }, { code, message, line: line.line });
    return { ...line, customId: null, outcome };
  };
  for await (const { number, at, sizeBytes, bytes } of inputLines(store.files.path(inputFileId), MOST_LINE_BYTES)) {
    count += 1;
    if (count > MOST_LINES) {
      store.forgetLines(seq);
      return [whole('too_many_lines', `A batch has at most ${MOST_LINES} lines; split the file.`)];
    }
    const place = { line: number, at, sizeBytes };
    const read = bytes === null ? TOO_LONG : withinModels(readBatchLine(bytes, endpoint), models);
    if (isMistake(read)) added.push(note({ ...place, model: null }, read));
    else added.push({ ...place, customId: read.customId, model: read.model, outcome: null });
    if (added.length >= ADDED_AT_ONCE) await flush();
  }
  await flush();
  if (count === 0) return [whole('empty_file', 'The input file has no lines: send one JSON object a line.')];
  return requests === 0 ? mistakes : null;
}

const TOO_LONG = { code: 'line_too_long', message: `A line has at most ${MOST_LINE_BYTES} bytes.`, param: null };

/** A request for one model too many is a mistake; `models`: those of the batch so far. */
function withinModels(read: BatchRequestLine | BatchLineMistake, models: Set<string>): typeof read {
  if (isMistake(read)) return read;
  if (models.size < MOST_MODELS) models.add(read.model);
  return models.has(read.model) ? read : TOO_MANY_MODELS;
}

const TOO_MANY_MODELS: BatchLineMistake = {
  code: 'too_many_models',
  message: `A batch names at most ${MOST_MODELS} models: send this line in another one.`,
  param: 'body.model',
};

const duplicate = (first: number): Omit<BatchError, 'line'> => ({
  code: 'duplicate_custom_id',
  message: `Line ${first} has the same custom_id: that one is asked, this one is not.`,
  param: 'custom_id',
});

const whole = (code: string, message: string): BatchError => ({ code, message, line: null, param: null });
