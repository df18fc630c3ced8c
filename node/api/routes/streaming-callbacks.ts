/** `POST api/streaming/{data,error,done}`: where FIRST's remote functions push streamed answers. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { bodyJson, isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import { failureOf } from '../../backends/globus-compute/task-report.ts';
import { MeshError } from '../../common/errors.ts';
import { requireJson } from '../guard-hook.ts';
import { bodyBytes } from '../intake.ts';
import type { CallbackInbox, Push, PushOutcome } from '../resource-server/callback-inbox.ts';

const MAX_DATA_BYTES = 150_000;
const MAX_CONTROL_BYTES = 15_000;
const MAX_ID_CHARS = 128;

/** What a sender says; other fields are not read. */
interface Said {
  readonly push: Push;
  /** The field that the route is about; empty where it may be absent. */
  readonly text: string;
}

/** Adds the three to a scope that already is below `/resource_server`. Their tokens, not the key, let senders in. */
export function addStreamingCallbacks(scope: FastifyInstance, inbox: CallbackInbox): void {
  const onRequest = [requireJson, async (request: FastifyRequest) => checkSecret(inbox, request)];
  const route = (name: string, bodyLimit: number, take: (said: Said, reply: FastifyReply) => PushOutcome): void => {
    const options = { config: { keyless: true }, bodyLimit, onRequest };
    scope.post(`/api/streaming/${name}`, options, async (request, reply) => {
      const said = read(request, name);
      check(take(said, reply), said.push.taskId);
      return { status: 'ok' };
    });
  };
  route('data', MAX_DATA_BYTES, ({ push, text }, reply) => {
    reply.raw.once('close', () => {
      if (!reply.raw.writableFinished) inbox.unconfirmed(push, text);
    });
    return inbox.data(push, text);
  });
  route('error', MAX_CONTROL_BYTES, ({ push, text }) => inbox.end(push, failureOf(text, 'The remote function')));
  route('done', MAX_CONTROL_BYTES, ({ push }) => inbox.end(push, null));
}

function read(request: FastifyRequest, field: string): Said {
  const json = bodyJson(bodyBytes(request.body));
  const taskId = textOf(json, 'task_id');
  if (taskId === '' || taskId.length > MAX_ID_CHARS) throw notText('task_id');
  const text = field === 'done' ? '' : textOf(json, field);
  return { push: { taskId, token: header(request, 'x-stream-task-token') }, text };
}

function textOf(json: unknown, field: string): string {
  const value = isRecord(json) ? json[field] : undefined;
  if (typeof value !== 'string') throw notText(field);
  return value;
}

const notText = (field: string): MeshError =>
  new MeshError('invalid_request', `${field} must be a text`, { param: field });

/** Before the body: strangers cannot make this node read one. */
function checkSecret(inbox: CallbackInbox, request: FastifyRequest): void {
  if (inbox.knows(header(request, 'x-internal-secret'))) return;
  throw new MeshError('unauthorized', 'X-Internal-Secret is not the one of this node.');
}

function check(outcome: PushOutcome, id: string): void {
  if (outcome === 'gone') throw new MeshError('not_found', `There is no task ${id.slice(0, 128)} here.`);
  if (outcome === 'refused') throw new MeshError('unauthorized', 'X-Stream-Task-Token is not the one of this task.');
}

function header(request: FastifyRequest, name: string): string | null {
  const value = request.headers[name];
  return typeof value === 'string' ? value : null;
}
