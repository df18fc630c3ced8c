/** `POST chat/completions` and `POST completions`: body in, dispatch, answer out, streamed or whole. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { EndEvent, InferenceKind, InferenceRequest } from '../../../protocols/inference/events.ts';
import { parseBody } from '../../../protocols/inference/openai-body.ts';
import { abortable } from '../../common/clock.ts';
import { MeshError } from '../../common/errors.ts';
import type { Dispatch } from '../../routing/dispatch.ts';
import { answerIdentity, wholeAnswer } from '../answer-format.ts';
import { ChunkFormat } from '../chunk-format.ts';
import type { FacadeComponents } from '../components.ts';
import { requireJson } from '../guard-hook.ts';
import { scanJson } from '../json-scan.ts';
import type { OpenAnswers } from '../open-answers.ts';
import { newSeed, requestIdOf } from '../request-id.ts';
import { boundaryOf } from '../routing-headers.ts';
import { commitHeaders, cutShort, StreamAnswer, type StreamTimes } from '../stream-answer.ts';

/** Tells clients of a draining node when to come back: by then another node, or a restarted one, answers. */
const DRAIN_RETRY_MS = 2_000;

export interface InferenceRouteOptions {
  readonly answers: OpenAnswers;
  /** The process is about to end. */
  readonly stopping: () => boolean;
  readonly times: StreamTimes;
}

/** Adds both routes under `prefix`, for example `/v1`. */
export function addInferenceRoutes(
  app: FastifyInstance,
  prefix: string,
  components: FacadeComponents,
  options: InferenceRouteOptions,
): void {
  const admit = async (): Promise<void> => {
    if (options.stopping())
      throw new MeshError('draining', 'This node is shutting down; ask again soon.', { retryAfterMs: DRAIN_RETRY_MS });
    const refused = components.service?.refusal('local') ?? null;
    if (refused !== null) throw refused;
  };
  const route = (path: string, kind: InferenceKind): void => {
    app.post(`${prefix}${path}`, { onRequest: [requireJson, admit] }, (request, reply) =>
      answer(kind, request, reply, components, options),
    );
  };
  route('/chat/completions', 'chat');
  route('/completions', 'completion');
}

async function answer(
  kind: InferenceKind,
  request: FastifyRequest,
  reply: FastifyReply,
  components: FacadeComponents,
  { answers, times }: InferenceRouteOptions,
): Promise<FastifyReply> {
  const boundary = boundaryOf(request.headers);
  const bytes = bodyBytes(request.body);
  const body = parseBody(kind, bytes);
  const requestId = requestIdOf(request.raw, request.id);
  const limit = boundary === null ? {} : { boundary };
  const inference: InferenceRequest = { requestId, kind, model: body.model, body: bytes, seed: newSeed(), ...limit };
  const stream = body.stream === true;
  const signal = answers.open(reply.raw);
  const dispatch = components.dispatcher.dispatch(inference, { signal, stream, label: request.id });
  const identity = answerIdentity(kind, requestId, body.model);
  try {
    if (!stream) {
      const { texts, end } = await abortable(collect(dispatch), signal);
      reply.headers(commitHeaders(dispatch)).type('application/json; charset=utf-8');
      return reply.send(JSON.stringify(wholeAnswer(identity, texts, end)));
    }
    const takeOver = () => {
      reply.hijack();
      return definedHeaders(reply);
    };
    const format = new ChunkFormat(identity, body.stream_options?.include_usage === true);
    const { clock } = components;
    await new StreamAnswer({ response: reply.raw, dispatch, format, signal, clock, takeOver }, times).run();
    return reply;
  } catch (thrown) {
    if (dispatch.attempts > 0) reply.headers(commitHeaders(dispatch));
    throw thrown;
  }
}

function bodyBytes(body: unknown): Uint8Array {
  if (!(body instanceof Uint8Array) || body.length === 0) {
    throw new MeshError('invalid_request', 'The request has no body. Send a JSON object.');
  }
  scanJson(body);
  return body;
}

/** Text of each choice, and the event that says that they are whole. */
async function collect(dispatch: Dispatch): Promise<{ texts: string[]; end: EndEvent }> {
  const texts: string[] = [];
  let end: EndEvent | null = null;
  for await (const event of dispatch.events) {
    if (event.type === 'chunk') texts[event.choice] = (texts[event.choice] ?? '') + event.text;
    else if (event.type === 'end') end = event;
  }
  if (end === null) throw cutShort();
  return { texts, end };
}

function definedHeaders(reply: FastifyReply): Record<string, string | number | string[]> {
  const headers: Record<string, string | number | string[]> = {};
  for (const [name, value] of Object.entries(reply.getHeaders())) if (value !== undefined) headers[name] = value;
  return headers;
}
