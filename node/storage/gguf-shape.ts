/** The figures of a model's build that its memory needs depend on, from the metadata of its GGUF. Pure. */

/** A list only of numbers and booleans, and only of a wanted key. */
export type GgufValue = string | number | bigint | boolean | null | readonly number[];
export type GgufMetadata = ReadonlyMap<string, GgufValue>;

/** Zero where the file does not say. */
export interface ModelShape {
  /** Blocks; 0 = the file tells nothing that memory could be computed from. */
  readonly layers: number;
  readonly embeddingLength: number;
  readonly feedForwardLength: number;
  /** Experts that one token passes; 0 = not a mixture. */
  readonly expertsUsed: number;
  readonly vocabularySize: number;
  readonly heads: number;
  /** Key and value heads of each layer; 0 for a layer without attention. */
  readonly kvHeads: readonly number[];
  /** Elements of one head's key and of its value. */
  readonly keyLength: number;
  readonly valueLength: number;
  /** Elements of a compressed key and value (latent attention), which then replace those of the heads. */
  readonly latentLength: number;
  /** Tokens that a layer with a sliding window looks back; 0 = none has one. */
  readonly slidingWindow: number;
  /** For each layer: has it the sliding window? Empty where no layer has. */
  readonly slidingLayers: readonly boolean[];
  /** Elements of a recurrent layer's state, for each sequence; 0 = not recurrent. */
  readonly recurrentLength: number;
}

const MAX_LAYERS = 4096;
/** How often a layer looks at everything, where that follows from the architecture: every n-th. */
const FULL_EVERY: ReadonlyMap<string, number> = new Map([
  ['gemma2', 2],
  ['gemma3', 6],
  ['gemma3n', 5],
  ['cohere2', 4],
  ['gpt-oss', 2],
]);

const WANTED = [
  'block_count',
  'embedding_length',
  'feed_forward_length',
  'expert_feed_forward_length',
  'expert_used_count',
  'vocab_size',
  'context_length',
  'rope.dimension_count',
  'attention.head_count',
  'attention.head_count_kv',
  'attention.key_length',
  'attention.value_length',
  'attention.kv_lora_rank',
  'attention.sliding_window',
  'attention.sliding_window_pattern',
  'ssm.conv_kernel',
  'ssm.inner_size',
  'ssm.state_size',
  'ssm.group_count',
];

/** Keys, without the architecture in front, that `modelShape` reads. */
export const SHAPE_KEYS: ReadonlySet<string> = new Set(WANTED);

/** Reads what is there; `vocabularySize` is the length of the tokenizer's list. Values beyond reason count as not said. */
export function modelShape(metadata: GgufMetadata, architecture: string, vocabularySize: number): ModelShape {
  const value = (key: string): GgufValue | undefined => metadata.get(`${architecture}.${key}`);
  const number = (key: string): number => largest(value(key));
  const layers = Math.min(MAX_LAYERS, number('block_count'));
  const embeddingLength = number('embedding_length');
  const heads = number('attention.head_count');
  const headLength = heads === 0 ? 0 : Math.ceil(embeddingLength / heads);
  const latent = number('attention.kv_lora_rank');
  return {
    layers,
    embeddingLength,
    heads,
    feedForwardLength: number('expert_feed_forward_length') || number('feed_forward_length'),
    expertsUsed: number('expert_used_count'),
    vocabularySize: vocabularySize || number('vocab_size'),
    kvHeads: perLayer(value('attention.head_count_kv') ?? value('attention.head_count'), layers),
    keyLength: number('attention.key_length') || headLength,
    valueLength: number('attention.value_length') || headLength,
    latentLength: latent === 0 ? 0 : latent + number('rope.dimension_count'),
    slidingWindow: number('attention.sliding_window'),
    slidingLayers: slidingLayers(value('attention.sliding_window_pattern'), architecture, layers),
    recurrentLength: recurrentLength(number),
  };
}

function slidingLayers(pattern: GgufValue | undefined, architecture: string, layers: number): readonly boolean[] {
  if (Array.isArray(pattern)) return Array.from({ length: layers }, (_, layer) => pattern[layer] === 1);
  const every = largest(pattern) || (FULL_EVERY.get(architecture) ?? 0);
  return every < 2 ? [] : Array.from({ length: layers }, (_, layer) => (layer + 1) % every !== 0);
}

/** State of a selective state-space layer: the convolution's tail and the state itself. */
function recurrentLength(number: (key: string) => number): number {
  const inner = number('ssm.inner_size');
  const state = number('ssm.state_size');
  const tail = Math.max(0, number('ssm.conv_kernel') - 1);
  return tail * (inner + 2 * number('ssm.group_count') * state) + state * inner;
}

function perLayer(value: GgufValue | undefined, layers: number): readonly number[] {
  if (Array.isArray(value)) return Array.from({ length: layers }, (_, layer) => largest(value[layer]));
  return Array.from({ length: layers }, () => largest(value));
}

/** A count as a number, of a list its largest; what cannot be one is 0. */
function largest(value: GgufValue | undefined): number {
  if (Array.isArray(value)) return Math.max(0, ...value.map(largest));
  const number = typeof value === 'bigint' || typeof value === 'number' ? Number(value) : 0;
  return Number.isSafeInteger(number) && number >= 0 && number < 2 ** 31 ? number : 0;
}
