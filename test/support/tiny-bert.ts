/** Tiny models of random weights that llama.cpp loads: an encoder that embeds, and one with a ranking head. */
import { type Metadata, type Tensor, writeGguf } from '../../node/backends/llama-cpp/demo/training/gguf-writer.ts';

const DIM = 32;
const HEADS = 2;
const LAYERS = 2;
const FFN = 64;
/** Tokens that both take at most. */
export const TINY_BERT_CONTEXT = 128;
export const TINY_BERT_DIMENSIONS = DIM;

const POOLING = { embed: 1, rank: 4 } as const;
const CONTROL = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'];
/** Begins a word; without it a token goes on with one. */
const WORD = '\u2581';
const LETTERS = [...'abcdefghijklmnopqrstuvwxyz0123456789.,?!'];
const VOCABULARY = [...CONTROL, ...LETTERS.map((letter) => WORD + letter), ...LETTERS];

/** Writes the model to `path`; the same bytes each time. `rank`: a cross-encoder that gives one score. */
export function writeTinyBert(path: string, kind: keyof typeof POOLING): void {
  writeGguf(path, metadata(POOLING[kind]), tensors(kind));
}

function metadata(pooling: number): Metadata[] {
  return [
    ['general.architecture', 'str', 'bert'],
    ['general.name', 'str', 'tiny-bert'],
    ['general.file_type', 'u32', 0],
    ['bert.context_length', 'u32', TINY_BERT_CONTEXT],
    ['bert.embedding_length', 'u32', DIM],
    ['bert.block_count', 'u32', LAYERS],
    ['bert.feed_forward_length', 'u32', FFN],
    ['bert.attention.head_count', 'u32', HEADS],
    ['bert.attention.layer_norm_epsilon', 'f32', 1e-12],
    ['bert.attention.causal', 'bool', false],
    ['bert.pooling_type', 'u32', pooling],
    ['tokenizer.ggml.model', 'str', 'bert'],
    ['tokenizer.ggml.tokens', 'arr:str', VOCABULARY],
    ['tokenizer.ggml.token_type', 'arr:i32', VOCABULARY.map((_, id) => (id < CONTROL.length ? 3 : 1))],
    ['tokenizer.ggml.token_type_count', 'u32', 2],
    ['tokenizer.ggml.padding_token_id', 'u32', 0],
    ['tokenizer.ggml.unknown_token_id', 'u32', 1],
    ['tokenizer.ggml.bos_token_id', 'u32', 2],
    ['tokenizer.ggml.cls_token_id', 'u32', 2],
    ['tokenizer.ggml.eos_token_id', 'u32', 3],
    // Spelt so in the format.
    ['tokenizer.ggml.seperator_token_id', 'u32', 3],
    ['tokenizer.ggml.mask_token_id', 'u32', 4],
  ];
}

function tensors(kind: keyof typeof POOLING): Tensor[] {
  const random = randomFloats(7);
  const all: Tensor[] = [];
  const matrix = (name: string, input: number, output: number): void => {
    all.push({ name, dims: [input, output], type: 'F32', data: random(input * output, 2 / Math.sqrt(input)) });
  };
  const vector = (name: string, length: number, fill: number): void => {
    all.push({ name, dims: [length], type: 'F32', data: new Float32Array(length).fill(fill) });
  };
  const linear = (name: string, input: number, output: number): void => {
    matrix(`${name}.weight`, input, output);
    vector(`${name}.bias`, output, 0);
  };
  const norm = (name: string): void => {
    vector(`${name}.weight`, DIM, 1);
    vector(`${name}.bias`, DIM, 0);
  };
  matrix('token_embd.weight', DIM, VOCABULARY.length);
  matrix('token_types.weight', DIM, 2);
  matrix('position_embd.weight', DIM, TINY_BERT_CONTEXT);
  norm('token_embd_norm');
  for (let layer = 0; layer < LAYERS; layer += 1) {
    const part = (name: string): string => `blk.${layer}.${name}`;
    for (const name of ['attn_q', 'attn_k', 'attn_v', 'attn_output']) linear(part(name), DIM, DIM);
    norm(part('attn_output_norm'));
    linear(part('ffn_up'), DIM, FFN);
    linear(part('ffn_down'), FFN, DIM);
    norm(part('layer_output_norm'));
  }
  if (kind === 'rank') {
    linear('cls', DIM, DIM);
    linear('cls.output', DIM, 1);
  }
  return all;
}

/** Evenly spread around zero, from a linear congruential generator. */
function randomFloats(seed: number): (count: number, scale: number) => Float32Array {
  let state = seed;
  return (count, scale) =>
    Float32Array.from({ length: count }, () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return (state / 2 ** 32 - 0.5) * 2 * scale;
    });
}
