/** Reads and checks the header of a GGUF file before any native code sees it. Bounded in time and memory, whatever the file says. */
import { type FileHandle, open } from 'node:fs/promises';
import { basename } from 'node:path';
import { MeshError } from '../common/errors.ts';
import { GgufCursor, GgufFault } from './gguf-cursor.ts';
import { type GgufMetadata, type GgufValue, type ModelShape, modelShape, SHAPE_KEYS } from './gguf-shape.ts';
import {
  ARRAY_TYPE,
  BOOL_TYPE,
  FILE_TYPES,
  SCALAR_BYTES,
  STRING_TYPE,
  TENSOR_LAYOUTS,
  U16_TYPE,
} from './gguf-types.ts';

const MAGIC = 0x46554747;
const MAX_METADATA_BYTES = 64 * 1024 * 1024;
const MAX_ENTRIES = 65_536;
const MAX_KEY_BYTES = 65_535;
const MAX_KEPT_TEXT_BYTES = 4096;
/** Lists that have one number for each layer are kept. */
const MAX_KEPT_NUMBERS = 4096;
const MAX_ARRAY_DEPTH = 4;
const MAX_DIMENSIONS = 4;
const MAX_ALIGNMENT = 65_536;
const DEFAULT_ALIGNMENT = 32;

/** What a GGUF file says about itself. */
export interface GgufHeader {
  /** `general.architecture`, for example `llama`. */
  readonly architecture: string;
  /** `general.name`; null where the file does not say. */
  readonly name: string | null;
  /** Tokens; 0 where the file does not say. */
  readonly trainedContext: number;
  /** `general.file_type` as a name, for example `Q4_K_M`. */
  readonly quantization: string | null;
  readonly hasChatTemplate: boolean;
  readonly tensorCount: number;
  /** Number of files that the model is split into; 1 = not split. */
  readonly shardCount: number;
  readonly shape: ModelShape;
}

/** What was read of the metadata. */
interface Metadata {
  readonly values: GgufMetadata;
  /** Tokens in the tokenizer's list. */
  readonly vocabularySize: number;
}

/**
 * Reads the header of the file at `path` (not the tensors) and checks that every tensor lies within the file.
 *
 * @throws MeshError `invalid_request` with one sentence that begins with the file's name.
 */
export async function readGgufHeader(path: string): Promise<GgufHeader> {
  let file: FileHandle | null = null;
  try {
    file = await open(path, 'r');
    const stat = await file.stat();
    if (!stat.isFile()) throw new GgufFault('is not a file');
    return await parseHeader(file, stat.size);
  } catch (error) {
    throw refusal(path, error);
  } finally {
    await file?.close();
  }
}

function refusal(path: string, error: unknown): MeshError {
  const code = (error as NodeJS.ErrnoException).code;
  const message =
    error instanceof GgufFault
      ? `${basename(path)} ${error.message} (${path})`
      : code === 'ENOENT'
        ? `there is no file ${path}`
        : `cannot read ${path} (${code ?? String(error)})`;
  return new MeshError('invalid_request', message, { cause: error });
}

async function parseHeader(file: FileHandle, sizeBytes: number): Promise<GgufHeader> {
  const cursor = new GgufCursor(file, sizeBytes, MAX_METADATA_BYTES);
  if (sizeBytes < 4 || (await cursor.u32()) !== MAGIC) throw new GgufFault('is not a GGUF file');
  const version = await cursor.u32();
  if (version !== 2 && version !== 3) throw new GgufFault(`is GGUF version ${version}; versions 2 and 3 can be read`);
  const tensorCount = await cursor.length(MAX_ENTRIES, 'tensors');
  const entryCount = await cursor.length(MAX_ENTRIES, 'metadata entries');
  const metadata = await readMetadata(cursor, entryCount);
  await checkTensors(cursor, tensorCount, alignmentOf(metadata.values), sizeBytes);
  return describe(metadata, tensorCount);
}

async function readMetadata(cursor: GgufCursor, count: number): Promise<Metadata> {
  const values = new Map<string, GgufValue>();
  let vocabularySize = 0;
  for (let index = 0; index < count; index++) {
    const key = await cursor.text(MAX_KEY_BYTES, 'a metadata key');
    const type = await cursor.u32();
    if (type === ARRAY_TYPE) {
      const { count, numbers } = await readArray(cursor, isWanted(key));
      if (key === 'tokenizer.ggml.tokens') vocabularySize = count;
      if (numbers !== null) values.set(key, numbers);
    } else {
      const value = await readScalar(cursor, type);
      if (isWanted(key)) values.set(key, value);
    }
  }
  return { values, vocabularySize };
}

/** Only a few short values are kept: a header may hold a vocabulary of many megabytes. */
function isWanted(key: string): boolean {
  return (
    key.startsWith('general.') ||
    key === 'tokenizer.chat_template' ||
    key === 'split.count' ||
    SHAPE_KEYS.has(key.slice(key.indexOf('.') + 1))
  );
}

async function readScalar(cursor: GgufCursor, type: number): Promise<GgufValue> {
  if (type === STRING_TYPE) return await readText(cursor);
  const bytes = scalarBytes(type);
  if (type === U16_TYPE) return await cursor.u16();
  if (bytes === 4) return await cursor.u32();
  if (bytes === 8) return await cursor.u64();
  cursor.skip(bytes);
  return null;
}

function scalarBytes(type: number): number {
  const bytes = SCALAR_BYTES.get(type);
  if (bytes === undefined) throw new GgufFault(`is damaged: it uses metadata type ${type}, which does not exist`);
  return bytes;
}

async function readText(cursor: GgufCursor): Promise<string> {
  const length = await cursor.length(MAX_METADATA_BYTES, 'bytes of text');
  if (length <= MAX_KEPT_TEXT_BYTES) return await cursor.bytes(length);
  cursor.skip(length);
  return '…';
}

/** Passes over an array, or keeps it where it is wanted, short, and of small integers. */
async function readArray(
  cursor: GgufCursor,
  wanted: boolean,
): Promise<{ readonly count: number; readonly numbers: readonly number[] | null }> {
  const type = await cursor.u32();
  const count = await cursor.length(MAX_METADATA_BYTES, 'array elements');
  const bytes = SCALAR_BYTES.get(type);
  if (!wanted || count > MAX_KEPT_NUMBERS || (bytes !== 4 && type !== BOOL_TYPE)) {
    await skipElements(cursor, type, count, 1);
    return { count, numbers: null };
  }
  const numbers: number[] = [];
  for (let index = 0; index < count; index++) numbers.push(bytes === 4 ? await cursor.u32() : await cursor.u8());
  return { count, numbers };
}

async function skipElements(cursor: GgufCursor, type: number, count: number, depth: number): Promise<void> {
  if (type === STRING_TYPE) return await cursor.skipTexts(count);
  if (type !== ARRAY_TYPE) return cursor.skip(scalarBytes(type) * count);
  if (depth >= MAX_ARRAY_DEPTH) {
    throw new GgufFault(`is damaged: its arrays are nested deeper than ${MAX_ARRAY_DEPTH}`);
  }
  for (let index = 0; index < count; index++) {
    const inner = await cursor.u32();
    await skipElements(cursor, inner, await cursor.length(MAX_METADATA_BYTES, 'array elements'), depth + 1);
  }
}

function alignmentOf(metadata: GgufMetadata): number {
  const value = metadata.get('general.alignment') ?? DEFAULT_ALIGNMENT;
  const valid = typeof value === 'number' && value >= 8 && value <= MAX_ALIGNMENT && value % 8 === 0;
  if (!valid) throw new GgufFault(`is damaged: it claims an alignment of ${String(value)}`);
  return value;
}

/** Offsets count from the first aligned byte after the tensor list, which is known only once the list was read. */
async function checkTensors(cursor: GgufCursor, count: number, alignment: number, fileBytes: number): Promise<void> {
  let dataBytes = 0n;
  for (let index = 0; index < count; index++) {
    const end = await readTensor(cursor, alignment);
    if (end > dataBytes) dataBytes = end;
  }
  const dataStart = Math.ceil(cursor.position / alignment) * alignment;
  const needed = BigInt(dataStart) + dataBytes;
  if (count > 0 && needed > BigInt(fileBytes)) {
    throw new GgufFault(`is truncated: it names tensors up to byte ${needed}, the file has ${fileBytes}`);
  }
}

/** Returns where the tensor ends, from the start of the data. */
async function readTensor(cursor: GgufCursor, alignment: number): Promise<bigint> {
  const name = await cursor.text(MAX_KEY_BYTES, 'a tensor name');
  const shown = `tensor "${name.slice(0, 64).replace(/[^\x20-\x7e]/g, '?')}"`;
  const dimensions = await cursor.u32();
  if (dimensions > MAX_DIMENSIONS)
    throw new GgufFault(`is damaged: ${shown} has ${dimensions} dimensions, at most 4 are allowed`);
  let elements = 1n;
  let row = 1n;
  for (let index = 0; index < dimensions; index++) {
    const extent = await cursor.u64();
    if (index === 0) row = extent;
    elements *= extent;
    if (extent === 0n || elements >= 1n << 63n) throw new GgufFault(`is damaged: ${shown} has an impossible size`);
  }
  const layout = TENSOR_LAYOUTS.get(await cursor.u32());
  const offset = await cursor.u64();
  if (offset % BigInt(alignment) !== 0n) throw new GgufFault(`is damaged: ${shown} is not aligned`);
  // A type that we do not know yet: its size is unknown, its first byte must still be there.
  if (layout === undefined) return offset + 1n;
  if (row % BigInt(layout.elements) !== 0n)
    throw new GgufFault(`is damaged: ${shown} has rows that do not fit its type`);
  return offset + (elements / BigInt(layout.elements)) * BigInt(layout.sizeBytes);
}

function describe({ values: metadata, vocabularySize }: Metadata, tensorCount: number): GgufHeader {
  const architecture = metadata.get('general.architecture');
  if (typeof architecture !== 'string' || !/^[\w.-]{1,64}$/.test(architecture)) {
    throw new GgufFault('does not say which architecture its model has (general.architecture)');
  }
  const name = metadata.get('general.name');
  const fileType = metadata.get('general.file_type');
  return {
    architecture,
    name: typeof name === 'string' ? name.replace(/\p{Cc}/gu, '').slice(0, 256) : null,
    trainedContext: smallInteger(metadata.get(`${architecture}.context_length`)),
    quantization: typeof fileType === 'number' ? (FILE_TYPES.get(fileType) ?? null) : null,
    hasChatTemplate: typeof metadata.get('tokenizer.chat_template') === 'string',
    tensorCount,
    shardCount: Math.max(1, smallInteger(metadata.get('split.count'))),
    shape: modelShape(metadata, architecture, vocabularySize),
  };
}

/** `split.count` and context lengths come as any integer type; nonsense counts as not said. */
function smallInteger(value: GgufValue | undefined): number {
  const number = typeof value === 'bigint' || typeof value === 'number' ? Number(value) : 0;
  return Number.isSafeInteger(number) && number < 2 ** 31 ? number : 0;
}
