/** Results of tasks as the JSON of their routes, in pieces that fit a frame of the wire. */
import type { EmbeddingBody } from '../../../../protocols/inference/bodies/embedding-body.ts';
import type { RerankBody } from '../../../../protocols/inference/bodies/rerank-body.ts';
import type { EngineTaskResult, TaskBody } from './engine-task.ts';

/** Bytes of a piece. */
const PIECE_BYTES = 48 * 1024;
/** So many digits tell every float32 from its neighbours. */
const FLOAT_DIGITS = 9;

/**
 * The body of the answer to `asked`: joined, the pieces are one JSON text in UTF-8.
 *
 * @param results of all its tasks, in order.
 */
export function* resultBody(asked: TaskBody, results: readonly EngineTaskResult[]): Generator<Uint8Array> {
  yield* pieces(bodyTexts(asked, results));
}

function bodyTexts(asked: TaskBody, results: readonly EngineTaskResult[]): Iterable<string> {
  switch (asked.kind) {
    case 'embedding':
      return embeddingTexts(asked.body, results);
    case 'rerank':
      return rerankTexts(asked.body, results);
    default:
      return results.map(tokenText);
  }
}

function* embeddingTexts(body: EmbeddingBody, results: readonly EngineTaskResult[]): Generator<string> {
  yield '{"object":"list","data":[';
  let index = 0;
  for (const result of results) {
    for (const vector of result.type === 'embed' ? result.vectors : []) {
      const embedding = body.encoding_format === 'base64' ? `"${vector}"` : floatsJson(vector);
      yield `${index === 0 ? '' : ','}{"object":"embedding","index":${index},"embedding":${embedding}}`;
      index += 1;
    }
  }
  yield `],"model":${JSON.stringify(body.model)},"usage":${usageJson(results)}}`;
}

function* rerankTexts(body: RerankBody, results: readonly EngineTaskResult[]): Generator<string> {
  const scores = results.flatMap((result) => (result.type === 'rerank' ? result.scores : []));
  const best = scores.map((score, index) => ({ score, index })).sort((a, b) => b.score - a.score || a.index - b.index);
  yield `{"object":"list","model":${JSON.stringify(body.model)},"results":[`;
  for (const [rank, { score, index }] of best.slice(0, body.top_n).entries()) {
    const document = body.return_documents === true ? { document: { text: body.documents[index] ?? '' } } : {};
    yield `${rank === 0 ? '' : ','}${JSON.stringify({ index, relevance_score: score, ...document })}`;
  }
  yield `],"usage":${usageJson(results)}}`;
}

function tokenText(result: EngineTaskResult): string {
  if (result.type === 'detokenize') return JSON.stringify({ prompt: result.text, content: result.text });
  if (result.type !== 'tokenize') return '';
  const { tokens, contextTokens, strings } = result;
  return JSON.stringify({ count: tokens.length, max_model_len: contextTokens, tokens, token_strs: strings });
}

function floatsJson(vector: string): string {
  const bytes = Buffer.from(vector, 'base64');
  const numbers: number[] = [];
  for (let at = 0; at < bytes.length; at += 4) numbers.push(Number(bytes.readFloatLE(at).toPrecision(FLOAT_DIGITS)));
  return JSON.stringify(numbers);
}

function usageJson(results: readonly EngineTaskResult[]): string {
  const tokens = results.reduce((sum, { promptTokens }) => sum + promptTokens, 0);
  return JSON.stringify({ prompt_tokens: tokens, total_tokens: tokens });
}

function* pieces(texts: Iterable<string>): Generator<Uint8Array> {
  let waiting: Uint8Array[] = [];
  let waitingBytes = 0;
  for (const text of texts) {
    for (let rest: Uint8Array = Buffer.from(text, 'utf8'); rest.length > 0; ) {
      const taken = rest.subarray(0, PIECE_BYTES - waitingBytes);
      rest = rest.subarray(taken.length);
      waiting.push(taken);
      waitingBytes += taken.length;
      if (waitingBytes < PIECE_BYTES) continue;
      yield Buffer.concat(waiting);
      waiting = [];
      waitingBytes = 0;
    }
  }
  if (waitingBytes > 0) yield Buffer.concat(waiting);
}
