/** `/v1/batches`: many requests in a file, answered when nobody else needs the machines. */
import type { FastifyInstance } from 'fastify';
import { Type } from 'typebox';
import { BOUNDARIES, type Boundary } from '../../../protocols/inference/events.ts';
import { MeshError } from '../../common/errors.ts';
import type { StoredBatch } from '../../storage/batch-store.ts';
import type { FacadeComponents } from '../components.ts';
import { requireJson } from '../guard-hook.ts';
import { admitting } from '../intake.ts';
import { SMALL_BODY_BYTES, smallBody } from '../json-body.ts';
import { boundaryOf } from '../routing-headers.ts';
import { addFileRoutes, limitOf, pageBody, queryOf, type RawQuery } from './files.ts';

const NewBatchBody = Type.Object({
  input_file_id: Type.Optional(Type.String({ minLength: 1, maxLength: 128 })),
  endpoint: Type.Optional(Type.String({ minLength: 1, maxLength: 128 })),
  completion_window: Type.Optional(Type.String({ minLength: 2, maxLength: 8 })),
  metadata: Type.Optional(
    Type.Union([
      Type.Null(),
      Type.Record(Type.String({ maxLength: 64 }), Type.String({ maxLength: 512 }), { maxProperties: 16 }),
    ]),
  ),
  output_expires_after: Type.Optional(Type.Unknown()),
});
const EXPECTED = {
  input_file_id: 'the id of an uploaded file',
  endpoint: 'a path such as /v1/chat/completions',
  completion_window: 'a time such as 24h',
  metadata: 'at most 16 texts, names up to 64 and values up to 512 characters',
  output_expires_after: 'anything: files stay until they are deleted',
};

const MOST_LISTED = 100;
const LISTED = 20;
const SECONDS: Readonly<Record<string, number>> = { m: 60, h: 3600, d: 86_400 };
const LONGEST_WINDOW_SECONDS = 30 * 86_400;
/** Not OpenAI's: how far the requests may go, for who cannot send a header. */
const BOUNDARY_KEY = 'meshnode_boundary';

/** Adds these routes and those of files, where the node runs batches. */
export function addBatchRoutes(app: FastifyInstance, components: FacadeComponents, stopping: () => boolean): void {
  const { batches } = components;
  if (batches === undefined) return;
  const admit = admitting(components, stopping);
  addFileRoutes(app, components, { batches, admit });
  app.post('/v1/batches', { onRequest: [requireJson, admit], bodyLimit: SMALL_BODY_BYTES }, async (request) => {
    const body = smallBody(request, NewBatchBody, EXPECTED);
    const { input_file_id, endpoint, completion_window: window, metadata = null } = body;
    const windowSeconds = secondsOf(required(window, 'completion_window'));
    const boundary = boundaryOf(request.headers) ?? namedBoundary(metadata?.[BOUNDARY_KEY]);
    const inputFileId = required(input_file_id, 'input_file_id');
    const where = { inputFileId, endpoint: required(endpoint, 'endpoint') };
    return batchBody(batches.create({ ...where, window: window ?? '24h', windowSeconds, metadata, boundary }));
  });
  app.get<{ Querystring: RawQuery }>('/v1/batches', async (request) => {
    const query = queryOf(request);
    const limit = limitOf(query, MOST_LISTED, LISTED);
    return pageBody(batches.list({ after: query['after'], limit }).map(batchBody), limit);
  });
  app.get<{ Params: { id: string } }>('/v1/batches/:id', async ({ params }) => batchBody(batches.get(params.id)));
  const bodyless = { config: { simple: true } };
  app.post<{ Params: { id: string } }>('/v1/batches/:id/cancel', bodyless, async ({ params }) =>
    batchBody(batches.cancel(params.id)),
  );
}

function required(value: string | undefined, param: string): string {
  if (value !== undefined) return value;
  throw new MeshError('invalid_request', `Missing required parameter: '${param}'.`, { param });
}

function secondsOf(window: string): number {
  const [, count, unit] = /^(\d{1,4})([mhd])$/.exec(window) ?? [];
  const seconds = Number(count ?? 0) * (SECONDS[unit ?? ''] ?? 0);
  if (seconds > 0 && seconds <= LONGEST_WINDOW_SECONDS) return seconds;
  const message = 'completion_window must be a time such as 30m, 24h or 7d, 30d at most.';
  throw new MeshError('invalid_request', message, { param: 'completion_window' });
}

function namedBoundary(given: string | undefined): Boundary | null {
  if (given === undefined) return null;
  const known = BOUNDARIES.find((boundary) => boundary === given);
  if (known !== undefined) return known;
  const message = `metadata.${BOUNDARY_KEY} must be one of ${BOUNDARIES.join(', ')}.`;
  throw new MeshError('invalid_request', message, { param: `metadata.${BOUNDARY_KEY}` });
}

function batchBody(batch: StoredBatch): { readonly id: string } {
  const { promptTokens, completionTokens, errors } = batch;
  const at = (seconds: number | undefined): number | null => seconds ?? null;
  const body = {
    id: batch.id,
    object: 'batch',
    endpoint: batch.endpoint,
    errors: errors === undefined ? null : { object: 'list', data: errors },
    input_file_id: batch.inputFileId,
    completion_window: batch.window,
    status: batch.state,
    output_file_id: batch.outputFileId ?? null,
    error_file_id: batch.errorFileId ?? null,
    created_at: batch.createdAt,
    in_progress_at: at(batch.inProgressAt),
    expires_at: batch.expiresAt,
    finalizing_at: at(batch.finalizingAt),
    completed_at: at(batch.completedAt),
    failed_at: at(batch.failedAt),
    // Set as soon as the time is over; the state follows with the files.
    expired_at: batch.state === 'expired' ? at(batch.expiredAt) : null,
    cancelling_at: at(batch.cancellingAt),
    cancelled_at: at(batch.cancelledAt),
    request_counts: { total: batch.total, completed: batch.completed, failed: batch.failed },
    usage: {
      input_tokens: promptTokens,
      input_tokens_details: { cached_tokens: 0 },
      output_tokens: completionTokens,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: promptTokens + completionTokens,
    },
    metadata: batch.metadata,
  };
  return body;
}
