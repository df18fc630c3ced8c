/** `POST chat/completions` and `POST completions`: body in, dispatch, answer out, streamed or whole. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { choicesOf } from '../../../protocols/inference/bodies/completion-prompts.ts';
import { parseBody } from '../../../protocols/inference/bodies/openai-body.ts';
import type { GenerationKind, InferenceRequest } from '../../../protocols/inference/events.ts';
import { abortable } from '../../common/clock.ts';
import type { Dispatcher } from '../../routing/dispatch.ts';
import { answerIdentity, wholeAnswer } from '../answer-format.ts';
import { collect } from '../answer-parts.ts';
import { ChunkFormat } from '../chunk-format.ts';
import type { FacadeComponents } from '../components.ts';
import { requireJson } from '../guard-hook.ts';
import { admitting, bodyBytes } from '../intake.ts';
import { withLoadBound } from '../load-wait.ts';
import type { OpenAnswers } from '../open-answers.ts';
import { newSeed, requestIdOf } from '../request-id.ts';
import { boundaryOf } from '../routing-headers.ts';
import { commitHeaders, StreamAnswer, type StreamTimes } from '../stream-answer.ts';

export interface InferenceRouteOptions {
  readonly answers: OpenAnswers;
  /** The process is about to end. */
  readonly stopping: () => boolean;
  readonly times: StreamTimes & { readonly loadWaitMs: number };
  /** Who takes this request on. Default: the node's dispatcher. */
  readonly dispatcherFor?: (request: FastifyRequest) => Dispatcher;
}

/** Adds both routes under `prefix`, for example `/v1`. */
export function addInferenceRoutes(
  app: FastifyInstance,
  prefix: string,
  components: FacadeComponents,
  options: InferenceRouteOptions,
): void {
  const admit = admitting(components, options.stopping);
  const route = (path: string, kind: GenerationKind): void => {
    app.post(`${prefix}${path}`, { onRequest: [requireJson, admit] }, (request, reply) =>
      answer(kind, request, reply, components, options),
    );
  };
  route('/chat/completions', 'chat');
  route('/completions', 'completion');
}

async function answer(
  kind: GenerationKind,
  request: FastifyRequest,
  reply: FastifyReply,
  components: FacadeComponents,
  { answers, times, dispatcherFor }: InferenceRouteOptions,
): Promise<FastifyReply> {
  const boundary = boundaryOf(request.headers);
  const bytes = bodyBytes(request.body);
  const body = parseBody(kind, bytes);
  const requestId = requestIdOf(request.raw, request.id);
  const limit = boundary === null ? {} : { boundary };
  const what = { kind, model: body.model, body: bytes, choices: choicesOf(body) };
  const inference: InferenceRequest = { requestId, ...what, seed: newSeed(), ...limit };
  const stream = body.stream === true;
  const { clock } = components;
  const signal = answers.open(reply.raw);
  const dispatcher = dispatcherFor?.(request) ?? components.dispatcher;
  const dispatch = dispatcher.dispatch(inference, { signal, stream, label: request.id });
  // Read when the answer begins: what stands in for the model that was asked for is not known before.
  const identity = {
    ...answerIdentity(kind, requestId, body.model),
    get model() {
      return dispatch.model ?? body.model;
    },
  };
  try {
    if (!stream) {
      const events = withLoadBound(dispatch.events, { clock, loadWaitMs: times.loadWaitMs });
      const { choices, end } = await abortable(collect(events), signal);
      reply.headers(commitHeaders(dispatch)).type('application/json; charset=utf-8');
      return reply.send(JSON.stringify(wholeAnswer(identity, choices, end, dispatch)));
    }
    const takeOver = () => {
      reply.hijack();
      return definedHeaders(reply);
    };
    const format = new ChunkFormat(identity, body.stream_options?.include_usage === true, dispatch);
    await new StreamAnswer({ response: reply.raw, dispatch, format, signal, clock, takeOver }, times).run();
    return reply;
  } catch (thrown) {
    if (dispatch.attempts > 0) reply.headers(commitHeaders(dispatch));
    throw thrown;
  }
}

function definedHeaders(reply: FastifyReply): Record<string, string | number | string[]> {
  const headers: Record<string, string | number | string[]> = {};
  for (const [name, value] of Object.entries(reply.getHeaders())) if (value !== undefined) headers[name] = value;
  return headers;
}
