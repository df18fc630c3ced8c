/** Files that look like GGUF and lie: about sizes, counts, types, offsets. Every one of them must be refused. */
import { type GgufParts, ggufBytes, TINY_METADATA } from './gguf.ts';

export interface GgufLie {
  /** Usable as a model id. */
  readonly name: string;
  readonly bytes: Buffer;
}

const HUGE = [
  2n ** 16n + 1n,
  2n ** 31n,
  2n ** 32n,
  2n ** 40n,
  2n ** 53n,
  2n ** 60n,
  2n ** 62n,
  2n ** 63n,
  2n ** 64n - 1n,
];
const TEXT = 8;
const ARRAY = 9;
/** Magic and version; after them the counts of tensors and of entries. */
const COUNTS_AT = 8;
const FIRST_KEY_AT = 24;

const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const u64 = (value: bigint): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
};

/** More than two hundred, by name. */
export function ggufLies(): readonly GgufLie[] {
  return [...notGguf(), ...counts(), ...keys(), ...values(), ...tensors(), ...cuts(), ...descriptions()];
}

function notGguf(): GgufLie[] {
  const whole = ggufBytes();
  const magics = [
    '',
    'G',
    'GG',
    'GGU',
    'gguf',
    'FUGG',
    'GGML',
    'PK\u0003\u0004',
    '\u007fELF',
    '<htm',
    '\0\0\0\0',
    'GGUE',
  ];
  const versions = [0, 1, 4, 5, 255, 256, 0x02000000, 0x03000000, 0x7fffffff, 0xffffffff];
  return [
    ...magics.map((magic, index) => {
      const bytes = magic.length < 4 ? Buffer.from(magic) : Buffer.concat([Buffer.from(magic), whole.subarray(4)]);
      return { name: `magic-${index}`, bytes };
    }),
    ...versions.map((version) => ({ name: `version-${version}`, bytes: ggufBytes({ version }) })),
    { name: 'magic-only', bytes: whole.subarray(0, 4) },
    { name: 'zeros', bytes: Buffer.alloc(4096) },
    { name: 'ones', bytes: Buffer.alloc(4096, 255) },
    { name: 'twice-the-magic', bytes: Buffer.concat([Buffer.from('GGUF'), whole]) },
  ];
}

function counts(): GgufLie[] {
  const both = HUGE.flatMap((claimed) => [
    { name: `tensors-${claimed}`, bytes: ggufBytes({ claimedTensors: claimed }) },
    { name: `entries-${claimed}`, bytes: ggufBytes({ claimedEntries: claimed }) },
    { name: `both-${claimed}`, bytes: ggufBytes({ claimedTensors: claimed, claimedEntries: claimed }) },
  ]);
  const more = [3n, 5n, 100n, 65_536n].map((claimed) => ({
    name: `tensors-more-${claimed}`,
    bytes: ggufBytes({ claimedTensors: claimed, dataBytes: 0 }),
  }));
  const moreEntries = [100n, 1_000n, 65_536n].map((claimed) => ({
    name: `entries-more-${claimed}`,
    bytes: ggufBytes({ claimedEntries: claimed }),
  }));
  return [...both, ...more, ...moreEntries];
}

/** The length of the first key, which everything after it hangs on. */
function keys(): GgufLie[] {
  const lengths = [...HUGE.slice(1), 65_536n, 1_000_000n, 5_000n];
  return lengths.map((length) => {
    const bytes = ggufBytes();
    bytes.writeBigUInt64LE(length, FIRST_KEY_AT);
    return { name: `key-length-${length}`, bytes };
  });
}

/** One metadata entry of any type and body before the honest ones. */
function withEntry(type: number, ...body: readonly Buffer[]): Buffer {
  const whole = ggufBytes();
  const key = Buffer.from('a.lie');
  const bytes = Buffer.concat([
    whole.subarray(0, FIRST_KEY_AT),
    u64(BigInt(key.length)),
    key,
    u32(type),
    ...body,
    whole.subarray(FIRST_KEY_AT),
  ]);
  bytes.writeBigUInt64LE(bytes.readBigUInt64LE(COUNTS_AT + 8) + 1n, COUNTS_AT + 8);
  return bytes;
}

function values(): GgufLie[] {
  const noSuchType = [13, 14, 15, 16, 100, 255, 65_536, 0x7fffffff, 0xffffffff];
  const deep = (depth: number): Buffer =>
    Buffer.concat(Array.from({ length: depth }, () => [u32(ARRAY), u64(1n)]).flat());
  return [
    ...noSuchType.map((type) => ({ name: `type-${type}`, bytes: withEntry(type) })),
    ...noSuchType.map((type) => ({ name: `element-type-${type}`, bytes: withEntry(ARRAY, u32(type), u64(1n)) })),
    ...HUGE.slice(1).map((length) => ({ name: `text-length-${length}`, bytes: withEntry(TEXT, u64(length)) })),
    ...HUGE.slice(1).flatMap((count) =>
      [0, 4, TEXT, ARRAY, 12].map((type) => ({
        name: `array-of-${type}-${count}`,
        bytes: withEntry(ARRAY, u32(type), u64(count)),
      })),
    ),
    ...HUGE.slice(1).map((length) => ({
      name: `element-length-${length}`,
      bytes: withEntry(ARRAY, u32(TEXT), u64(1n), u64(length)),
    })),
    ...[5, 6, 20, 1_000, 10_000].map((depth) => ({ name: `nested-${depth}`, bytes: withEntry(ARRAY, deep(depth)) })),
  ];
}

function tensors(): GgufLie[] {
  const one = (name: string, over: object, parts: GgufParts = {}): GgufLie => ({
    name: `tensor-${name}`,
    bytes: ggufBytes({ tensors: [{ name: 't', dimensions: [32], type: 0, offset: 0, ...over }], ...parts }),
  });
  return [
    ...HUGE.slice(1).map((extent) => one(`extent-${extent}`, { dimensions: [extent] })),
    ...HUGE.slice(1).map((extent) => one(`product-${extent}`, { dimensions: [extent, extent, 32, 32] })),
    ...HUGE.slice(1).map((offset) => one(`offset-${offset}`, { offset: (offset / 32n) * 32n })),
    ...[1, 3, 7, 8, 16, 31, 33].map((offset) => one(`unaligned-${offset}`, { offset })),
    ...[5, 6, 100].map((count) => one(`dimensions-${count}`, { dimensions: Array.from({ length: count }, () => 1) })),
    ...[0, 1, 2, 3].map((zero) => one(`zero-${zero}`, { dimensions: [0, 1, 2, 3].map((at) => (at === zero ? 0 : 1)) })),
    ...[2, 3, 6, 7, 8, 20, 39].map((type) => one(`row-of-${type}`, { type, dimensions: [33] })),
    ...[10, 11, 12, 13, 14, 15, 16].map((type) => one(`row-of-${type}`, { type, dimensions: [128] })),
    ...[0, 1, 24, 25, 26, 27, 28, 30].map((type) => one(`beyond-${type}`, { type, dimensions: [4096] })),
    ...[0, 1, 64, 127].map((dataBytes) => one(`without-data-${dataBytes}`, {}, { dataBytes })),
    one('unknown-type-beyond', { type: 999, offset: 320 }),
    one('overlong-name', { name: 'n'.repeat(65_536) }),
  ];
}

/** Cut in 32 places, none of them the end. */
function cuts(): GgufLie[] {
  const whole = ggufBytes();
  return Array.from({ length: 32 }, (_, part) => ({
    name: `cut-${part}`,
    bytes: whole.subarray(0, Math.floor((whole.length * (part + 0.5)) / 32)),
  }));
}

function descriptions(): GgufLie[] {
  const with_ = (name: string, more: object): GgufLie => ({
    name,
    bytes: ggufBytes({ metadata: { ...TINY_METADATA, ...more } as NonNullable<GgufParts['metadata']> }),
  });
  const architectures = [
    '',
    ' ',
    '../llama',
    'a/b',
    'lla ma',
    'x'.repeat(65),
    'llama\u0000',
    '\u202ellama',
    '…'.repeat(2000),
  ];
  return [
    ...architectures.map((value, index) =>
      with_(`architecture-${index}`, { 'general.architecture': { type: 'text', value } }),
    ),
    with_('architecture-number', { 'general.architecture': { type: 'u32', value: 7 } }),
    ...[0, 1, 4, 7, 9, 31, 65_544, 4_294_967_295].map((value) =>
      with_(`alignment-${value}`, { 'general.alignment': { type: 'u32', value } }),
    ),
    with_('alignment-text', { 'general.alignment': { type: 'text', value: '32' } }),
    { name: 'nothing-said', bytes: ggufBytes({ metadata: {} }) },
  ];
}
