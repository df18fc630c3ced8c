/** `/v1/files`: uploads for batches, and what batches wrote. */
import { createReadStream } from 'node:fs';
import type { IncomingMessage, Server } from 'node:http';
import { addAbortSignal } from 'node:stream';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { deadline } from '../../common/clock.ts';
import { MeshError } from '../../common/errors.ts';
import { type BatchService, MOST_FILE_BYTES } from '../../routing/batch-service.ts';
import type { StoredFile } from '../../storage/batch-store-files.ts';
import type { FacadeComponents } from '../components.ts';
import { requireIdentity } from '../guard-hook.ts';
import { multipartFile, type UploadedPart } from '../multipart-upload.ts';

/** The form around a file. */
const FORM_BYTES = 64 * 1024;
/** Of one upload, whatever it is made of: beyond what is taken, so that who sends too much reads why. */
const READ_BYTES = 2 * MOST_FILE_BYTES;
/** Of a client that uploads. */
const SILENCE_MS = 20_000;
/** An upload may take longer than other requests. */
const UPLOAD_MS = 10 * 60_000;
const MOST_LISTED = 10_000;

/** What stands twice in a query comes as a list. */
export type RawQuery = Readonly<Record<string, string | readonly string[] | undefined>>;
type Query = Readonly<Record<string, string | undefined>>;

/** Adds the routes. `admit` refuses uploads while the node takes no work. */
export function addFileRoutes(
  app: FastifyInstance,
  { clock }: Pick<FacadeComponents, 'clock'>,
  { batches, admit }: { readonly batches: BatchService; readonly admit: () => Promise<void> },
): void {
  const patience = new UploadPatience();
  // The types of bodies that are taken here are taken nowhere else.
  app.register(async (scope) => {
    const asItComes = /^(?:multipart\/form-data|application\/(?:jsonl|x-ndjson|x-jsonlines|octet-stream))(?:$|\s*;)/;
    scope.addContentTypeParser(asItComes, (_request, payload, done) => done(null, payload));
    const config = { simple: true };
    const options = { config, onRequest: [requireIdentity, admit], bodyLimit: MOST_FILE_BYTES + FORM_BYTES };
    scope.post('/v1/files', options, async (request) => {
      const body = request.body;
      if (!isStream(body)) throw new MeshError('unsupported_media_type', 'Send the file as multipart/form-data.');
      refuseTooLong(request);
      const patient = patience.begin(app.server);
      using silence = deadline(clock, SILENCE_MS, stoppedHalfway);
      addAbortSignal(silence.signal, body);
      let leftBytes = READ_BYTES;
      body.on('data', (part: Uint8Array) => {
        silence.refresh(SILENCE_MS);
        leftBytes -= part.byteLength;
        if (leftBytes < 0) body.destroy(tooLong());
      });
      body.pause();
      try {
        const { filename, content } = await partOf(request, body);
        return fileBody(await batches.upload(filename, content));
      } catch (error) {
        throw silence.signal.aborted ? stoppedHalfway() : error;
      } finally {
        // What is left of a refused upload is read and dropped: the client is to see the answer.
        body.resume();
        patient();
      }
    });
  });
  app.get<{ Querystring: RawQuery }>('/v1/files', async (request) => {
    const query = queryOf(request);
    const limit = limitOf(query, MOST_LISTED, MOST_LISTED);
    const { after, purpose, order } = query;
    const found = batches.listFiles({ after, purpose, limit, ascending: order === 'asc' });
    return pageBody(found.map(fileBody), limit);
  });
  app.get<{ Params: { id: string } }>('/v1/files/:id', async ({ params }) => fileBody(batches.file(params.id)));
  app.get<{ Params: { id: string } }>('/v1/files/:id/content', async ({ params }, reply) => {
    const { bytes, filename } = batches.file(params.id);
    const name = filename.replace(/[^\w.-]/g, '_');
    reply.headers({ 'content-length': bytes, 'content-disposition': `attachment; filename="${name}"` });
    // Whoever uploaded it chose what stands in it: it must never run as a page or a script.
    reply.header('x-content-type-options', 'nosniff');
    return reply.type('application/octet-stream').send(createReadStream(batches.path(params.id)));
  });
  app.delete<{ Params: { id: string } }>('/v1/files/:id', async ({ params: { id } }) => {
    await batches.removeFile(id);
    return { id, object: 'file', deleted: true };
  });
}

/** The query, each name once. @throws MeshError `invalid_request`. */
export function queryOf({ query }: Pick<FastifyRequest, 'query'>): Query {
  const entries = Object.entries(query as RawQuery).map(([name, value]): [string, string | undefined] => {
    if (value === undefined || typeof value === 'string') return [name, value];
    const param = name.slice(0, 64);
    throw new MeshError('invalid_request', `${param} stands in the query more than once.`, { param });
  });
  return Object.fromEntries(entries);
}

/** `?limit=`, from 1 to `most`. @throws MeshError `invalid_request`. */
export function limitOf({ limit }: Query, most: number, fallback: number): number {
  if (limit === undefined) return fallback;
  const count = Number(limit);
  if (Number.isInteger(count) && count >= 1 && count <= most) return count;
  throw new MeshError('invalid_request', `limit must be a whole number from 1 to ${most}.`, { param: 'limit' });
}

/** A page of a list in OpenAI's shape; `found` has one more than `limit` where there is more. */
export function pageBody(found: readonly { readonly id: string }[], limit: number): object {
  const data = found.slice(0, limit);
  return {
    object: 'list',
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: found.length > limit,
  };
}

async function partOf(request: FastifyRequest, body: IncomingMessage): Promise<UploadedPart> {
  if (request.headers['content-type']?.startsWith('multipart/') === true) {
    return await multipartFile(body, (fields) => checkPurpose(fields.get('purpose')));
  }
  const { purpose, filename = 'upload.jsonl' } = queryOf(request);
  checkPurpose(purpose);
  return { filename, content: body };
}

function checkPurpose(purpose: string | undefined): void {
  if (purpose === 'batch') return;
  throw new MeshError('invalid_request', 'purpose must be "batch": files are for batches here.', { param: 'purpose' });
}

function refuseTooLong({ headers }: FastifyRequest): void {
  if (Number(headers['content-length'] ?? 0) <= MOST_FILE_BYTES + FORM_BYTES) return;
  throw tooLong();
}

const tooLong = (): MeshError =>
  new MeshError('payload_too_large', `A file has at most ${MOST_FILE_BYTES} bytes; split it.`, { param: 'file' });

function fileBody({ id, bytes, createdAt, filename, purpose }: StoredFile): { readonly id: string } {
  const file = { id, object: 'file', bytes, created_at: createdAt, expires_at: null, filename, purpose };
  const body = { ...file, status: 'processed', status_details: null };
  return body;
}

function isStream(body: unknown): body is IncomingMessage {
  return typeof body === 'object' && body !== null && 'pipe' in body;
}

const stoppedHalfway = (): MeshError =>
  new MeshError('request_timeout', 'The upload stopped halfway. Send it without pauses.', { param: 'file' });

/** Node bounds the time of all requests of a server alike: while somebody uploads, the bound is a longer one. */
class UploadPatience {
  #uploads = 0;
  #usualMs = 0;

  /** Returns what ends it. */
  begin(server: Server): () => void {
    if (this.#uploads === 0) {
      this.#usualMs = server.requestTimeout;
      server.requestTimeout = UPLOAD_MS;
    }
    this.#uploads += 1;
    return () => {
      this.#uploads -= 1;
      if (this.#uploads === 0) server.requestTimeout = this.#usualMs;
    };
  }
}
