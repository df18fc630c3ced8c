/** An order as far as it goes without a sequence: rendered, its resumed tokens replayed. In the engine child. */
import { MeshError } from '../../../common/errors.ts';
import { grammarOf } from '../grammar/grammar.ts';
import type { LaneOrder } from '../ipc.ts';
import { OutputPipeline } from '../output/output-pipeline.ts';
import { type Dialect, tagsOf } from '../prompt/dialect.ts';
import { ChoiceOutput } from './choice-output.ts';
import type { NativeModel } from './native-model.ts';
import type { NativeGrammar } from './native-sequence.ts';
import type { Vocabulary } from './native-vocabulary.ts';
import { echoText, type RenderedPrompt, renderPrompt } from './rendered-prompt.ts';

/** The part of a loaded model that orders need. */
export type OrderModel = Pick<NativeModel, 'contextTokens' | 'vocabulary' | 'template' | 'grammar' | 'generates'>;

export interface PreparedOrder {
  readonly order: LaneOrder;
  readonly prompt: readonly number[];
  readonly output: ChoiceOutput;
  readonly grammar: NativeGrammar | null;
}

/**
 * @throws MeshError `cannot_resume` when the resumed tokens do not fit here; `invalid_request` or
 *   `context_length_exceeded` that names the field.
 */
export async function prepareOrder(order: LaneOrder, model: OrderModel): Promise<PreparedOrder> {
  const { vocabulary } = model;
  if (!model.generates) {
    const message = 'This model generates no text: it is for embeddings or reranking. Choose another model.';
    throw new MeshError('invalid_request', message, { param: 'model' });
  }
  const prompt = renderPrompt(order.prompt, model);
  refuseUnknownBias(order, vocabulary);
  refuseUnknownResumed(order, vocabulary);
  const grammar = order.finished ? null : await orderGrammar(order, prompt, model);
  const output = newOutput(order, prompt, model);
  output.replay(order.resumed);
  if (output.finish === null) for (const token of order.resumed) grammar?.accept(token);
  return { order, prompt: prompt.tokens, output, grammar };
}

/** Is there anything to evaluate? */
export function needsSequence({ order, prompt, output }: PreparedOrder): boolean {
  if (order.finished || output.finish !== null) return false;
  return order.maxTokens !== 0 || (scoresPrompt(order) && prompt.length > 1);
}

/** Log probabilities of an echoed prompt go out with the first chunk: a resumed answer has given them. */
export function scoresPrompt({ echo, logprobs, resumed, finished }: LaneOrder): boolean {
  return echo && logprobs !== null && resumed.length === 0 && !finished;
}

async function orderGrammar(
  { prompt, constraint, parallelTools }: LaneOrder,
  { startsInReasoning }: RenderedPrompt,
  { template: { dialect }, grammar }: OrderModel,
): Promise<NativeGrammar | null> {
  const asked = prompt.kind === 'chat' ? { tools: prompt.tools, dialect } : { tools: [], dialect: null };
  const source = grammarOf(constraint, { ...asked, parallelTools, startsInReasoning });
  return source === null ? null : await grammar(source);
}

function newOutput(order: LaneOrder, prompt: RenderedPrompt, model: OrderModel): ChoiceOutput {
  const { vocabulary } = model;
  const isChat = order.prompt.kind === 'chat';
  const dialect = isChat ? model.template.dialect : null;
  const pipeline = new OutputPipeline(
    { detokenize: vocabulary.detokenize, tagTokens: tagTokens(dialect, vocabulary) },
    {
      stops: order.stop,
      dialect,
      parseTools: order.parseTools,
      parallelTools: order.parallelTools,
      callIdSeed: order.callIdSeed,
      startsInReasoning: prompt.startsInReasoning,
      ...(order.prompt.kind === 'chat' ? { toolNames: order.prompt.tools.map(({ name }) => name) } : {}),
    },
  );
  const echo = order.echo ? echoText(order.prompt, model) : '';
  const maxTokens = tokenLimit(order, model.contextTokens - prompt.tokens.length);
  return new ChoiceOutput({ pipeline, endsAnswer: vocabulary.endsAnswer }, { maxTokens, echo });
}

/** `room`: tokens that the context has left. */
function tokenLimit({ maxTokens, resumed, finished }: LaneOrder, room: number): number {
  if (finished) return Number.POSITIVE_INFINITY;
  const wanted = maxTokens ?? Number.POSITIVE_INFINITY;
  if (wanted > room && resumed.length >= room) {
    throw new MeshError('cannot_resume', 'The answer so far does not fit the context that this node has for it.');
  }
  return Math.min(wanted, room);
}

/** Text of the tags that are control tokens. */
function tagTokens(dialect: Dialect | null, { controlTokens }: Vocabulary): Map<number, string> {
  const found = new Map<number, string>();
  for (const tag of dialect === null ? [] : tagsOf(dialect)) {
    const token = controlTokens.get(tag);
    if (token !== undefined) found.set(token, tag);
  }
  return found;
}

function refuseUnknownBias({ sampling }: LaneOrder, { size }: Vocabulary): void {
  const strange = sampling.logitBias.find(([token]) => token < 0 || token >= size);
  if (strange === undefined) return;
  throw new MeshError(
    'invalid_request',
    `Invalid value for 'logit_bias': ${strange[0]} is no token of this model. Its token ids are 0 to ${size - 1}.`,
    { param: 'logit_bias' },
  );
}

/** Native code does not check ids. */
function refuseUnknownResumed({ resumed }: LaneOrder, { size }: Vocabulary): void {
  if (resumed.every((token) => Number.isInteger(token) && token >= 0 && token < size)) return;
  throw new MeshError('cannot_resume', 'The answer so far has tokens that this model does not have.');
}
