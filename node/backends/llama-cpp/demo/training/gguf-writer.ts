/** Writes GGUF version 3 files, as far as the demo and bench models need: F32, F16 and Q8_0 tensors of one file. */
import { closeSync, openSync, writeSync } from 'node:fs';

const VALUE_TYPE = { u32: 4, f32: 6, bool: 7, str: 8, arr: 9, i32: 5 } as const;
const TENSOR_TYPE = { F32: 0, F16: 1, Q8_0: 8 } as const;
const ALIGNMENT = 32;
const BLOCK = 32;

/** A metadata key, the type of its value, the value. */
export type Metadata =
  | readonly [key: string, type: 'u32' | 'i32' | 'f32', value: number]
  | readonly [key: string, type: 'bool', value: boolean]
  | readonly [key: string, type: 'str', value: string]
  | readonly [key: string, type: 'arr:str', value: readonly string[]]
  | readonly [key: string, type: 'arr:i32', value: readonly number[]];

export interface Tensor {
  readonly name: string;
  /** The first is the length of a row. */
  readonly dims: readonly number[];
  readonly type: keyof typeof TENSOR_TYPE;
  readonly data: Float32Array;
}

/** Writes the file, replacing what is there. */
export function writeGguf(path: string, metadata: readonly Metadata[], tensors: readonly Tensor[]): void {
  const header = new Bytes();
  header.raw(Buffer.from('GGUF')).u32(3).u64(tensors.length).u64(metadata.length);
  for (const entry of metadata) writeMetadata(header, entry);
  let offset = 0;
  for (const tensor of tensors) {
    header.str(tensor.name).u32(tensor.dims.length);
    for (const dim of tensor.dims) header.u64(dim);
    header.u32(TENSOR_TYPE[tensor.type]).u64(offset);
    offset += padded(encodedBytes(tensor));
  }
  const file = openSync(path, 'w');
  try {
    writePadded(file, header.join());
    for (const tensor of tensors) writePadded(file, encode(tensor));
  } finally {
    closeSync(file);
  }
}

class Bytes {
  readonly #parts: Buffer[] = [];

  raw(bytes: Buffer): this {
    this.#parts.push(bytes);
    return this;
  }

  u32(value: number): this {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return this.raw(bytes);
  }

  i32(value: number): this {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32LE(value);
    return this.raw(bytes);
  }

  f32(value: number): this {
    const bytes = Buffer.alloc(4);
    bytes.writeFloatLE(value);
    return this.raw(bytes);
  }

  u64(value: number): this {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt(value));
    return this.raw(bytes);
  }

  str(value: string): this {
    const bytes = Buffer.from(value, 'utf8');
    return this.u64(bytes.length).raw(bytes);
  }

  join(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

function writeMetadata(out: Bytes, entry: Metadata): void {
  const [key, type, value] = entry;
  out.str(key);
  if (type === 'arr:str') {
    out.u32(VALUE_TYPE.arr).u32(VALUE_TYPE.str).u64(value.length);
    for (const item of value) out.str(item);
  } else if (type === 'arr:i32') {
    out.u32(VALUE_TYPE.arr).u32(VALUE_TYPE.i32).u64(value.length);
    for (const item of value) out.i32(item);
  } else {
    out.u32(VALUE_TYPE[type]);
    if (type === 'str') out.str(value);
    else if (type === 'bool') out.raw(Buffer.from([value ? 1 : 0]));
    else out[type](value);
  }
}

function encodedBytes({ type, data }: Tensor): number {
  if (type === 'F32') return data.length * 4;
  return type === 'F16' ? data.length * 2 : (data.length / BLOCK) * (BLOCK + 2);
}

function encode({ type, data }: Tensor): Buffer {
  if (type === 'F32') return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return type === 'F16' ? encodeF16(data) : encodeQ8(data);
}

function encodeF16(values: Float32Array): Buffer {
  const half = Uint16Array.from(values, toHalf);
  return Buffer.from(half.buffer);
}

/** Blocks of 32: a half-precision scale and 32 signed bytes. */
function encodeQ8(values: Float32Array): Buffer {
  const out = Buffer.alloc((values.length / BLOCK) * (BLOCK + 2));
  for (let block = 0; block * BLOCK < values.length; block += 1) {
    const start = block * BLOCK;
    let largest = 0;
    for (let i = start; i < start + BLOCK; i += 1) largest = Math.max(largest, Math.abs(values[i] ?? 0));
    const scale = largest / 127;
    const at = block * (BLOCK + 2);
    out.writeUInt16LE(toHalf(scale), at);
    for (let i = 0; i < BLOCK; i += 1) {
      out.writeInt8(scale === 0 ? 0 : Math.round((values[start + i] ?? 0) / scale), at + 2 + i);
    }
  }
  return out;
}

const single = new Float32Array(1);
const singleBits = new Uint32Array(single.buffer);

/** The bits of the nearest half-precision number. */
function toHalf(value: number): number {
  single[0] = value;
  const bits = singleBits[0] ?? 0;
  const sign = (bits >>> 16) & 0x8000;
  const exponent = ((bits >>> 23) & 0xff) - 112;
  const mantissa = bits & 0x7fffff;
  if (exponent >= 31) return sign | 0x7c00;
  if (exponent <= 0) return exponent < -10 ? sign : sign | ((mantissa | 0x800000) >> (14 - exponent));
  const kept = (exponent << 10) | (mantissa >> 13);
  const rest = mantissa & 0x1fff;
  const roundUp = rest > 0x1000 || (rest === 0x1000 && (kept & 1) === 1);
  return sign | (kept + (roundUp ? 1 : 0));
}

function padded(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

function writePadded(file: number, bytes: Buffer): void {
  writeSync(file, bytes);
  writeSync(file, Buffer.alloc(padded(bytes.length) - bytes.length));
}
