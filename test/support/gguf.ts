/** Writes small GGUF files for tests of the header check: valid unless told otherwise. */

type Value =
  | { readonly type: 'u16' | 'u32' | 'u64' | 'f32' | 'bool'; readonly value: number }
  | { readonly type: 'text'; readonly value: string }
  | { readonly type: 'texts'; readonly value: readonly string[] };

interface Tensor {
  readonly name: string;
  readonly dimensions: readonly (number | bigint)[];
  /** 0 = F32, 1 = F16, 2 = Q4_0. */
  readonly type: number;
  readonly offset: number | bigint;
}

export interface GgufParts {
  readonly version?: number;
  readonly metadata?: Readonly<Record<string, Value>>;
  readonly tensors?: readonly Tensor[];
  /** Zero bytes after the header. */
  readonly dataBytes?: number;
  /** What the header claims, where it shall lie. */
  readonly claimedTensors?: bigint;
  readonly claimedEntries?: bigint;
}

const TYPE_NUMBERS = { u16: 2, u32: 4, f32: 6, bool: 7, text: 8, texts: 9, u64: 10 } as const;

/** Metadata of a tiny llama that says everything that the header reader looks for. */
export const TINY_METADATA: Readonly<Record<string, Value>> = {
  'general.architecture': { type: 'text', value: 'llama' },
  'general.name': { type: 'text', value: 'Tiny' },
  'general.file_type': { type: 'u32', value: 1 },
  'llama.context_length': { type: 'u32', value: 512 },
  'tokenizer.chat_template': { type: 'text', value: '{{ messages }}' },
  'tokenizer.ggml.tokens': { type: 'texts', value: ['<s>', 'a', 'b'] },
};

/** The bytes of a GGUF file: by default the tiny llama with two tensors. */
export function ggufBytes(parts: GgufParts = {}): Buffer {
  const metadata = Object.entries(parts.metadata ?? TINY_METADATA);
  const tensors = parts.tensors ?? [
    { name: 'token_embd.weight', dimensions: [32, 3], type: 1, offset: 0 },
    { name: 'output_norm.weight', dimensions: [32], type: 0, offset: 192 },
  ];
  const header = Buffer.concat([
    Buffer.from('GGUF'),
    u32(parts.version ?? 3),
    u64(parts.claimedTensors ?? tensors.length),
    u64(parts.claimedEntries ?? metadata.length),
    ...metadata.flatMap(([key, value]) => [text(key), u32(TYPE_NUMBERS[value.type]), encode(value)]),
    ...tensors.flatMap((tensor) => [
      text(tensor.name),
      u32(tensor.dimensions.length),
      ...tensor.dimensions.map(u64),
      u32(tensor.type),
      u64(tensor.offset),
    ]),
  ]);
  const padding = Buffer.alloc((32 - (header.length % 32)) % 32);
  return Buffer.concat([header, padding, Buffer.alloc(parts.dataBytes ?? 320)]);
}

function encode(value: Value): Buffer {
  switch (value.type) {
    case 'text':
      return text(value.value);
    case 'texts':
      return Buffer.concat([u32(TYPE_NUMBERS.text), u64(value.value.length), ...value.value.map(text)]);
    case 'bool':
      return Buffer.from([value.value]);
    case 'u16': {
      const bytes = Buffer.alloc(2);
      bytes.writeUInt16LE(value.value);
      return bytes;
    }
    case 'f32': {
      const bytes = Buffer.alloc(4);
      bytes.writeFloatLE(value.value);
      return bytes;
    }
    case 'u32':
      return u32(value.value);
    case 'u64':
      return u64(value.value);
  }
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function u64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value, 'utf8');
  return Buffer.concat([u64(bytes.length), bytes]);
}
