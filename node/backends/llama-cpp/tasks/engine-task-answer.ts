/** The answer to a request that generates nothing, on the node's side: tasks for the child, events for who asked. */
import type { EndEvent, InferenceEvent, InferenceRequest } from '../../../../protocols/inference/events.ts';
import { MeshError } from '../../../common/errors.ts';
import type { Answer, AnswerEvent } from '../answer.ts';
import { type EngineTask, type EngineTaskResult, engineTask, taskBody } from './engine-task.ts';
import { taskParts } from './task-parts.ts';
import { resultBody } from './task-result-body.ts';

/** What a submitted task gives: progress* result. */
export type TaskAnswer = Pick<Answer, 'events' | 'over'>;

/** The part of `ModelEngine` that runs tasks. A task takes a slot like any request. */
export interface TaskEngine<A extends TaskAnswer = TaskAnswer> {
  submit(order: EngineTask): A;
  cancel(answer: A, error: MeshError): void;
}

/** Who answers. */
export interface TaskAnswerFacts {
  /** Of this node. */
  readonly fingerprint: string;
  /** sha256 (hex) of the GGUF, null while it is unknown. */
  readonly artifact: string | null;
}

/**
 * Answers a request of kind embedding, rerank, tokenize or detokenize: progress* accepted result* end. A large one is
 * cut into tasks that run one after the other, so that no message between node and child is huge and others get their
 * turn in between; `accepted` follows the first of them and counts its tokens, `end` counts all. Leaving the iteration
 * or aborting `signal` cancels what runs.
 *
 * @throws MeshError `invalid_request` or `context_length_exceeded` that names the field; whatever the engine fails with.
 */
export async function* answerTask<A extends TaskAnswer>(
  engine: TaskEngine<A>,
  request: InferenceRequest,
  facts: TaskAnswerFacts,
  { signal }: { readonly signal: AbortSignal },
): AsyncGenerator<InferenceEvent> {
  const asked = taskBody(request);
  const results: EngineTaskResult[] = [];
  const rank = request.priority === 'batch' ? { isBatch: true } : {};
  for (const part of taskParts(engineTask(asked))) {
    const task = { ...part, ...rank };
    const isFirst = results.length === 0;
    for await (const event of runTask(engine, task, signal)) {
      if (event.type === 'result') results.push(event.result);
      else if (event.type === 'progress' && isFirst) yield event;
    }
    if (results.at(-1)?.type !== task.type) throw new MeshError('engine_failed', 'The engine gave no result.');
    const first = results[0];
    if (isFirst && first !== undefined) {
      const { promptTokens, promptDigest } = first;
      yield { type: 'accepted', node: facts.fingerprint, promptTokens, promptDigest, artifact: facts.artifact };
    }
  }
  for (const body of resultBody(asked, results)) yield { type: 'result', body };
  yield endOf(results);
}

async function* runTask<A extends TaskAnswer>(
  engine: TaskEngine<A>,
  task: EngineTask,
  signal: AbortSignal,
): AsyncGenerator<AnswerEvent> {
  if (signal.aborted) throw cancelled();
  const answer = engine.submit(task);
  const cancel = (): void => engine.cancel(answer, cancelled());
  signal.addEventListener('abort', cancel, { once: true });
  try {
    yield* answer.events();
  } finally {
    signal.removeEventListener('abort', cancel);
    if (!answer.over) cancel();
  }
}

function cancelled(): MeshError {
  return new MeshError('client_closed', 'The request was cancelled.');
}

function endOf(results: readonly EngineTaskResult[]): EndEvent {
  const sum = (of: (result: EngineTaskResult) => number): number => results.reduce((total, r) => total + of(r), 0);
  return {
    type: 'end',
    finishReasons: [],
    usage: { promptTokens: sum((r) => r.promptTokens), completionTokens: 0, cachedTokens: 0 },
    timings: { promptMs: sum((r) => r.durationMs), predictedMs: 0 },
  };
}
