/** Routes whose answer is one result: the body goes to who serves the model, and what comes back goes out as it is. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { InferenceEvent, InferenceKind, InferenceRequest } from '../../../protocols/inference/events.ts';
import { abortable } from '../../common/clock.ts';
import type { Dispatcher } from '../../routing/dispatch.ts';
import type { FacadeComponents } from '../components.ts';
import { requireJson } from '../guard-hook.ts';
import { admitting, bodyBytes } from '../intake.ts';
import { withLoadBound } from '../load-wait.ts';
import type { OpenAnswers } from '../open-answers.ts';
import { newSeed, requestIdOf } from '../request-id.ts';
import { boundaryOf } from '../routing-headers.ts';
import { commitHeaders, cutShort } from '../stream-answer.ts';

export interface ResultRouteOptions {
  readonly answers: OpenAnswers;
  /** The process is about to end. */
  readonly stopping: () => boolean;
  /** How long the answer waits for a model that loads. */
  readonly loadWaitMs: number;
  /** Who takes this request on. Default: the node's dispatcher. */
  readonly dispatcherFor?: (request: FastifyRequest) => Dispatcher;
}

export interface ResultRoute {
  /** For example `/v1/rerank`. */
  readonly path: string;
  readonly kind: InferenceKind;
  /**
   * Checks the body.
   *
   * @throws MeshError `invalid_request` that names the field.
   */
  readonly parse: (bytes: Uint8Array) => { readonly model: string };
}

/** Adds the route. */
export function addResultRoute(
  app: FastifyInstance,
  components: FacadeComponents,
  { answers, stopping, loadWaitMs, dispatcherFor }: ResultRouteOptions,
  { path, kind, parse }: ResultRoute,
): void {
  const onRequest = [requireJson, admitting(components, stopping)];
  app.post(path, { onRequest }, (request, reply) =>
    answer(request, reply, { dispatcher: dispatcherFor?.(request), components, answers, loadWaitMs, kind, parse }),
  );
}

interface Route extends Pick<ResultRoute, 'kind' | 'parse'> {
  readonly dispatcher: Dispatcher | undefined;
  readonly components: FacadeComponents;
  readonly answers: OpenAnswers;
  readonly loadWaitMs: number;
}

async function answer(
  request: FastifyRequest,
  reply: FastifyReply,
  { dispatcher, components, answers, loadWaitMs, kind, parse }: Route,
): Promise<FastifyReply> {
  const boundary = boundaryOf(request.headers);
  const body = bodyBytes(request.body);
  const { model } = parse(body);
  const requestId = requestIdOf(request.raw, request.id);
  const limit = boundary === null ? {} : { boundary };
  const inference: InferenceRequest = { requestId, kind, model, body, seed: newSeed(), ...limit };
  const signal = answers.open(reply.raw);
  const dispatch = (dispatcher ?? components.dispatcher).dispatch(inference, {
    signal,
    stream: false,
    label: request.id,
  });
  try {
    const events = withLoadBound(dispatch.events, { clock: components.clock, loadWaitMs });
    const result = await abortable(wholeResult(events), signal);
    return reply.headers(commitHeaders(dispatch)).type('application/json; charset=utf-8').send(result);
  } catch (thrown) {
    if (dispatch.attempts > 0) reply.headers(commitHeaders(dispatch));
    throw thrown;
  }
}

async function wholeResult(events: AsyncIterable<InferenceEvent>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let isWhole = false;
  for await (const event of events) {
    if (event.type === 'result') parts.push(event.body);
    else if (event.type === 'end') isWhole = true;
  }
  if (!isWhole || parts.length === 0) throw cutShort();
  return Buffer.concat(parts);
}
