/** The answer to a line of a batch: the body that a client would have got, whole. */
import type { InferenceRequest } from '../../protocols/inference/events.ts';
import type { BatchAnswer } from '../routing/batch-runner.ts';
import type { Dispatch } from '../routing/dispatch.ts';
import { answerIdentity, wholeAnswer } from './answer-format.ts';
import { collect } from './answer-parts.ts';
import { cutShort } from './stream-answer.ts';

/** @throws MeshError what the dispatch throws, and `protocol_violation` for an answer without its end. */
export async function batchAnswer(
  { kind, requestId, model }: InferenceRequest,
  dispatch: Dispatch,
): Promise<BatchAnswer> {
  if (kind === 'chat' || kind === 'completion') {
    const { choices, end } = await collect(dispatch.events);
    const { promptTokens, completionTokens } = end.usage;
    const body = JSON.stringify(wholeAnswer(answerIdentity(kind, requestId, model), choices, end, dispatch));
    return { body, promptTokens, completionTokens };
  }
  const parts: Uint8Array[] = [];
  let usage: Pick<BatchAnswer, 'promptTokens' | 'completionTokens'> | null = null;
  for await (const event of dispatch.events) {
    if (event.type === 'result') parts.push(event.body);
    else if (event.type === 'end') usage = event.usage;
  }
  if (usage === null || parts.length === 0) throw cutShort();
  const { promptTokens, completionTokens } = usage;
  // A JSON line must be one line, whatever the server's taste.
  const body = JSON.stringify(JSON.parse(Buffer.concat(parts).toString('utf8')));
  return { body, promptTokens, completionTokens };
}
