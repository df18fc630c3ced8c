/** A file in a form, as browsers and the official clients send it, handed on as it arrives. */
import type { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { BusboyHeaders } from '@fastify/busboy';
import { MeshError } from '../common/errors.ts';

export interface UploadedPart {
  readonly filename: string;
  /** Ends after the form's end; throws what is wrong with the form. */
  readonly content: AsyncIterable<Uint8Array>;
}

const FIELD_BYTES = 4096;
const MOST_FIELDS = 16;

/**
 * The form's one file. `check` looks at the other fields once all are here; what it throws ends the content.
 *
 * @throws MeshError `invalid_request` for a body that is no such form.
 */
export async function multipartFile(
  request: IncomingMessage,
  check: (fields: ReadonlyMap<string, string>) => void,
): Promise<UploadedPart> {
  const { Busboy } = await import('@fastify/busboy');
  const fields = new Map<string, string>();
  const limits = { files: 1, fields: MOST_FIELDS, fieldSize: FIELD_BYTES, parts: MOST_FIELDS + 1 };
  const form = makeForm(() => new Busboy({ headers: request.headers as BusboyHeaders, limits }));
  const found = Promise.withResolvers<{ filename: string; file: Readable }>();
  found.promise.catch(() => {});
  form.on('file', (name, file, filename) => {
    // Whoever reads it is told by its iteration; a form that breaks off while nobody does must not end the node.
    file.on('error', () => {});
    if (name === 'file') found.resolve({ filename: filename ?? 'upload.jsonl', file });
    else file.resume();
  });
  form.on('field', (name, value) => void fields.set(name, value));
  const whole = pipeline(request, form).then(
    () => found.reject(refused('The form has no field "file".')),
    (thrown: Error) => {
      const error = thrown instanceof MeshError ? thrown : refused(`The form cannot be read (${thrown.message}).`);
      found.reject(error);
      void found.promise.then(({ file }) => file.destroy(error)).catch(() => {});
      throw error;
    },
  );
  whole.catch(() => {});
  const { filename, file } = await found.promise;
  return {
    filename,
    content: (async function* () {
      for await (const part of file) yield part as Uint8Array;
      await whole;
      check(fields);
    })(),
  };
}

function makeForm<T>(make: () => T): T {
  try {
    return make();
  } catch (error) {
    throw refused(`The form cannot be read (${error instanceof Error ? error.message : 'malformed'}).`);
  }
}

const refused = (message: string): MeshError => new MeshError('invalid_request', message, { param: 'file' });
